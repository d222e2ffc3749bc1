// back.js returns to where it was.
module.exports = {
  run: [
    { method: "shell.run", params: { path: "..", message: "git pull --ff-only" } },
    require("./packages.js")
  ]
}
