"""What the page's events do. Nothing here waits for a job: handlers submit, observe, cancel, and fill in the form.

They run without Gradio's preprocessing: values arrive as the browser sent them and are checked by
`wan_ui.queue.intake`, which also serves the command line, so that a forged value meets the same words. They answer
with {name of a part of the page: its update}, see wan_ui/ui/answers.py; what is not named stays as it is.

observe.py   what the page shows of the jobs, at every look and with every answer; a page that is opened
submit.py    Generate, "Add speech", an example, Cancel
after.py     "More with this clip"
clips.py     the clips that were made: on the stage, deleted
restore.py   old settings into the form
filling.py   the form is filled in with a model and its settings
choosing.py  model and weights are chosen, loaded, downloaded
changing.py  a person changes the form: what is said about it
loras.py     the LoRAs that are chosen
"""
