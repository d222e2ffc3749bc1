"""What can be done with a clip of the history without putting it on the stage: the menu behind "⋯" on its tile.

There is one menu, which is never drawn anew: the tile says what can be done with its clip (`can`), and is found again
by the clip's id when the history is drawn meanwhile.
"""

import gradio as gr

from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.request import UNKNOWN
from wan_ui.tasks import TASKS
from wan_ui.ui.markup import Markup, file_url, title
from wan_ui.ui.result import file_name

SCRIPT = """
const events = ['star', 'restore', 'extend', 'speak', 'again', 'stop', 'remove_many'];
const menu = element.querySelector('[role=menu]'), link = menu.querySelector('a');
const all = [...menu.querySelectorAll('[role=menuitem]')], offered = () => all.filter((item) => !item.hidden);
let job = '', pressed = '';
const isOpen = () => menu.matches(':popover-open');
const mark = () => {
  for (const button of document.querySelectorAll('[data-more]')) {
    button.setAttribute('aria-expanded', isOpen() && button.dataset.more === job);
  }
};
window.wanUi.markMore = mark;
menu.addEventListener('toggle', mark);
// Beside its button, also while the page scrolls.
const place = () => {
  const button = isOpen() && document.querySelector(`[data-more="${CSS.escape(job)}"]`);
  if (!button) return;
  const at = button.getBoundingClientRect(), { offsetWidth: wide, offsetHeight: high } = menu;
  const below = at.bottom + 4 + high <= window.innerHeight || at.top < high;
  menu.style.left = `${Math.max(8, Math.min(at.right - wide, window.innerWidth - wide - 8))}px`;
  menu.style.top = `${below ? at.bottom + 4 : at.top - high - 4}px`;
};
const show = (button) => {
  const { more, can, clip, name } = button.dataset;
  job = more;
  for (const item of all) item.hidden = !can.split(' ').includes(item.dataset.when);
  Object.assign(link, { href: clip ?? '', download: name ?? '' });
  menu.showPopover();
  place();
  offered()[0]?.focus();
};
// A press on the same button closes it: the browser has done so before the click.
document.addEventListener('pointerdown', () => { pressed = isOpen() ? job : ''; }, true);
document.addEventListener('click', ({ target, detail }) => {
  const button = target.closest?.('[data-more]');
  if (button && !(detail && pressed === button.dataset.more)) show(button);
});
menu.addEventListener('click', (event) => {
  const item = event.target.closest('[role=menuitem]');
  if (!item) return;
  menu.hidePopover();
  if (!events.includes(item.dataset.act)) return;
  if (item.dataset.act === 'speak') window.wanUi.speechIsFor(job);
  if (item.dataset.act === 'remove_many') trigger('remove_many', { jobs: [job] });
  else trigger(item.dataset.act, { job });
});
menu.addEventListener('keydown', (event) => {
  const items = offered(), at = items.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
  if (event.key === 'Tab') menu.hidePopover();
  if (to === undefined) return;
  event.preventDefault();
  items.at(to % items.length).focus();
});
for (const moved of ['scroll', 'resize']) window.addEventListener(moved, place, { passive: true });
"""
# event, words, and what of a tile's `can` it needs
ITEMS = (
    ("star", "★ Keep", "keep"),
    ("star", "★ Keep no longer", "kept"),
    ("restore", "Load settings", "settings"),
    ("extend", "Continue", "clip"),
    ("speak", "Add speech", "clip"),
    ("again", "Make another", "another"),
    ("again", "Run again", "again"),
    ("stop", "Cancel", "active"),
    ("remove_many", "Delete", "ended"),
)


def build_tile_menu() -> gr.HTML:
    items = Markup().join(
        Markup(
            '<button type="button" role="menuitem" tabindex="-1" data-act="{act}" data-when="{when}">{words}</button>'
        ).format(act=act, when=when, words=words)
        for act, words, when in ITEMS
    )
    return gr.HTML(
        Markup(
            '<div role="menu" class="w-menu" popover aria-label="This clip">'
            '<a role="menuitem" tabindex="-1" data-when="clip" href="" download>Download</a>{}</div>'
        ).format(items),
        elem_id="tile-menu",
        js_on_load=SCRIPT,
        apply_default_css=False,
    )


def more_html(job: Job) -> Markup:
    """The button of a tile."""
    clip = PIPELINE.clip(job)
    file = Markup(' data-clip="{}" data-name="{}"').format(file_url(clip), file_name(job)) if clip else Markup()
    return Markup(
        '<button type="button" class="w-more" data-more="{id}" data-can="{can}"{file} aria-haspopup="menu" '
        'aria-expanded="false" aria-label="More: {title}"><span>⋯</span></button>'
    ).format(id=job.id, can=" ".join(_can(job, clip is not None)), file=file, title=title(job.request))


def _can(job: Job, clip: bool) -> list[str]:
    can = ["active" if job.active else "ended"]
    if clip:
        can += ["clip", "kept" if job.star else "keep"]
    if (job.request.made_with or UNKNOWN).model:
        can.append("settings")
    if not job.active and job.state != "done":
        can.append("again")
    elif job.state == "done" and TASKS[job.request.task].samples:
        can.append("another")
    return can
