// The packages of this commit, each the one of its lock file to its checksum; torch follows by its version, in the build
// that the machine's GPU needs. Update and the way back take the same step.
module.exports = {
  method: "shell.run",
  params: {
    path: "..",
    venv: ".venv",
    venv_python: "3.12",
    message: [
      "uv pip install --no-deps --require-hashes -r requirements.lock",
      "uv pip install --torch-backend=auto torch==2.13.0"
    ]
  }
}
