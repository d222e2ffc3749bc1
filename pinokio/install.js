module.exports = { run: [require("./packages.js")] }
