module.exports = {
  daemon: true,
  run: [
    {
      method: "shell.run",
      params: {
        path: "..",
        venv: ".venv",
        env: { WAN_UI_PORT: "{{port}}" },
        message: "python app.py",
        on: [{ event: "/Wan UI: (http:\\/\\/[0-9.:]+)/", done: true }]
      }
    },
    { method: "local.set", params: { url: "{{input.event[1]}}" } }
  ]
}
