"""What is decided before a load reads weights: files, seams, this card's kernels, the configuration."""

from dataclasses import replace

from wan_ui.catalog import Model, Scheme
from wan_ui.engines import group, lightx2v_config, lightx2v_parallel, lightx2v_seams
from wan_ui.engines.kernel_choice import Chooser
from wan_ui.engines.lightx2v_upstream import import_lightx2v
from wan_ui.files.dit_file import read_dit
from wan_ui.files.places import Paths, locate
from wan_ui.machine import probing
from wan_ui.machine.hardware import Hardware, measure
from wan_ui.machine.shapes import shape_of
from wan_ui.request import Progress, Report
from wan_ui.settings import settings

KERNEL_LIMIT = 240.0  # seconds to try one kernel, compiling on a busy machine included


def decide(model: Model, scheme: Scheme, offload: str = "auto") -> tuple[Paths, Hardware, lightx2v_config.Choices]:
    """Raises UserError: files, seams, kernels, configuration. offload: what a job asks for, before the settings."""
    config = settings() if offload == "auto" else replace(settings(), lightx2v_offload=offload)
    paths = locate(model, scheme, config, engine="lightx2v")
    finer = 0
    for side, path, file in zip(model.family.sides, paths.experts, paths.configs, strict=True):
        finer += lightx2v_config.check_weights(path, read_dit(path, side, file), scheme)
    device = import_lightx2v(lightx2v_config.environment(config, measure()))
    lightx2v_seams.verify()
    hardware = lightx2v_config.with_hardware(measure(config.gpu_gib), device)
    together = group.here()
    hardware = replace(hardware, free=together.least(hardware.free))  # all ranks must decide alike
    choices = lightx2v_config.choose(model, scheme, paths, hardware, lightx2v_parallel.settings_for(config, together))
    choices = lightx2v_parallel.choices_for(choices, model, together)
    if finer:
        words = f"{finer} layers that the files keep in a finer type are rounded to fp8"
        choices = replace(choices, reasons=choices.reasons | {"weights": words})
    return paths, hardware, choices


def try_kernels(model: Model, scheme: Scheme, report: Report) -> None:
    """Find out, each in a child process, which of the kernels that this load would take are right on this card."""
    config = settings()
    hardware = measure()
    chooser = Chooser(config, model, hardware)
    shape = shape_of(model, *model.sizes[0], model.default_frames)
    probing.run(
        config,
        [shape],
        probes=chooser.untried(scheme, lightx2v_config.wished(model, scheme, config)),
        limit=KERNEL_LIMIT,
        card=hardware.name,
        report=lambda words: report(Progress("load", 1, 4, f"trying kernels on this card, once: {words}")),
    )
