// Wan UI in Pinokio (https://pinokio.co): what its sidebar offers. Written by its documentation; not run in it by us.
module.exports = {
  version: "5.0",
  title: "Wan UI",
  description: "A picture and a sentence become a moving clip: Wan2.2 in the browser, on a GPU or any two CPU cores.",
  icon: "icon.png",
  menu: async (kernel, info) => {
    const busy = ["install.js", "update.js", "back.js", "reset.js"].find((file) => info.running(file))
    if (busy) return [{ default: true, icon: "fa-solid fa-terminal", text: "Working", href: busy }]
    if (!info.exists("../.venv")) {
      return [{ default: true, icon: "fa-solid fa-plug", text: "Install", href: "install.js" }]
    }
    if (info.running("start.js")) {
      const local = info.local("start.js")
      const terminal = { icon: "fa-solid fa-terminal", text: "Terminal", href: "start.js" }
      if (!local || !local.url) return [{ ...terminal, default: true }]
      return [{ default: true, icon: "fa-solid fa-rocket", text: "Open Wan UI", href: local.url }, terminal]
    }
    return [
      { default: true, icon: "fa-solid fa-power-off", text: "Start", href: "start.js" },
      { icon: "fa-solid fa-rotate", text: "Update", href: "update.js" },
      { icon: "fa-solid fa-rotate-left", text: "Back to before the update", href: "back.js" },
      { icon: "fa-solid fa-plug", text: "Install again", href: "install.js" },
      { icon: "fa-regular fa-circle-xmark", text: "Remove what was installed", href: "reset.js" }
    ]
  }
}
