// Clips, models and LoRAs stay.
module.exports = { run: [{ method: "fs.rm", params: { path: "../.venv" } }] }
