"""Which kernels the LightX2V engine is told to take: the fastest that are known to be right on this card.

A kernel that was built for another card does not raise, it ends the process: Triton's modulate kernel on a GPU of
compute capability 12.0, for one. So nothing but torch's own operations is taken on trust. Any other kernel must have
passed on this very card, in a child process (wan_ui.machine.probing); what is not known is tried when a model is loaded
that would take it, once per card, driver and version. Compiled blocks are Triton kernels as well.
"""

import shutil
from dataclasses import dataclass

from wan_ui.catalog import FP8_KERNELS, Model, Scheme
from wan_ui.errors import UserError
from wan_ui.machine import probe_results
from wan_ui.machine.hardware import Hardware
from wan_ui.machine.probes import PROBES, Probe
from wan_ui.place import COMMAND
from wan_ui.settings import Settings, split_names

# Kernels of torch itself, the one for want of a better first: on a card that they are not for, they raise.
SAFE = {
    "attention": ("torch_sdpa",),
    "cross": ("torch_sdpa",),
    "gemm": ("fp8-torchao",),  # torch._scaled_mm
    "modulate": ("torch",),
    "norm": ("torch_native",),
    "rope": ("torch_complex_rope", "torch_real_rope"),
    "compile": ("off",),
}
# attention type -> the package that it needs; torch_sdpa needs none
ATTENTION = {entry.choice: "".join(entry.packages) for entry in PROBES if entry.kind == "attention" and entry.choice}
GGUF_MIXES = (
    "Q8_0", "Q6_K", "Q5_K_S", "Q5_K_M", "Q5_0", "Q5_1", "Q4_K_S", "Q4_K_M", "Q4_0", "Q4_1", "Q3_K_S", "Q3_K_M",
)  # fmt: skip


def left_plain(settings: Settings) -> frozenset[str]:
    """What WAN_UI_LIGHTX2V_PLAIN names, of settings.LEVERS."""
    return frozenset(split_names(settings.lightx2v_plain))


@dataclass(frozen=True)
class Chooser:
    """For one model on one card. Every choice is (name, reason)."""

    settings: Settings
    model: Model
    hardware: Hardware

    def kernel(self, kind: str, wish: str, among: tuple[str, ...] = (), key: str = "") -> tuple[str, str]:
        """What the configuration asks for, or for "auto" the best of `among` (empty: of all that can be told).

        Raises UserError naming the configuration's key: an unknown name, a missing package, a kernel that is not
        right here. One that has not been tried is left for the safe one.
        """
        key, known = key or kind, {entry.choice: entry for entry in PROBES if entry.kind == kind and entry.choice}
        if wish == "auto":
            return self._best(kind, tuple(name for name in among or known if not self._lacks(known[name])))
        if wish not in known:
            raise UserError(f"{key}: {wish!r} is not known; choose auto, {', '.join(known)}", field="scheme")
        if self._lacks(known[wish]):
            package = self._lacks(known[wish])
            raise UserError(f"{key}: {wish} needs the package {package}, which is not installed", field="scheme")
        if self._is_safe(kind, wish):
            return wish, "asked for"
        status, why = self.found(kind, wish)
        if status == "ok":
            return wish, "asked for, and right when tried on this card"
        if status:
            raise UserError(f"{key}: {wish} {status} when tried on {self.hardware.name}: {why}", field="scheme")
        return SAFE[kind][0], f"{wish} was asked for, but has not been tried on this card: {COMMAND} probe"

    def product(self, scheme: Scheme, wish: str) -> tuple[str, str]:
        """Upstream's name of the class of the linear layers' weights."""
        hardware = self.hardware
        if scheme.kind == "bf16":
            return "Default", "bf16 weights"
        if scheme.kind == "gguf":
            # Upstream has one class for all types, under the names of some mixes.
            known = scheme.qtype in GGUF_MIXES
            return f"gguf-{scheme.qtype}" if known else "gguf-Q8_0", "the file's own types; dequantised at every use"
        if hardware.device == "cuda" and not hardware.fp8:
            raise UserError(
                f"scheme: {scheme.name} needs a GPU that multiplies fp8 (Ada, Hopper, Blackwell), and {hardware.name} "
                f"is {hardware.capability[0]}.{hardware.capability[1]}; choose a gguf scheme or bf16",
                field="scheme",
            )
        if scheme.name in FP8_KERNELS:
            return self.kernel("gemm", scheme.name, key="scheme")
        if wish != "auto":
            return self.kernel("gemm", wish, key="fp8_kernel")
        # Torch's own product, which the compiler fuses best, unless it was found wrong on this machine.
        ours = SAFE["gemm"][0]
        if self.found("gemm", ours)[0] not in ("", "ok"):
            name, why = probe_results.best("gemm", self.settings, self.model.name, FP8_KERNELS, hardware.name)
            if name:
                return name, f"auto: {ours} is not right on this machine; {why}"
        return ours, "auto: torch._scaled_mm, no kernel library needed"

    def compiling(self, wish, offload: str) -> tuple[bool, str]:
        """Whether the blocks are compiled. wish  auto | true | false. Raises UserError for anything else."""
        if wish != "auto" and not isinstance(wish, bool):
            raise UserError(f"use_compile: {wish!r} is not known; choose auto, true or false", field="scheme")
        how = "auto" if wish == "auto" else "asked for"
        if wish is False:
            return False, how
        if offload == "block":
            return False, f"{how}, but blocks that take turns in one buffer cannot be compiled"
        if wish == "auto":
            if self.model.embedded:
                return False, "auto: a small model is done before it is compiled"
            if offload == "model" and self.hardware.device == "cuda":
                return False, "auto: moving the weights takes longer than the kernels"
        if self.hardware.device != "cuda":
            return wish is True, "auto: no GPU" if wish == "auto" else how
        if self._no_compiler():
            return False, f"{how}: {self._no_compiler()}"
        status, why = self.found("compile", "on")
        if status != "ok":
            found = f"they {status} when tried here: {why}" if status else "they have not been tried here"
            return False, f"{how}, but compiled kernels are Triton's, and {found}"
        return True, f"{how}: blocks compiled at load; WAN_UI_LIGHTX2V_COMPILE=off loads sooner"

    def fused(self, kind: str) -> tuple[bool, str]:
        """Whether this project's own kernels may be taken. kind  blocks | decoder"""
        if kind in left_plain(self.settings):
            return False, "switched off"
        if self.hardware.device != "cuda":
            return False, "no GPU"
        if self._no_triton():
            return False, self._no_triton()
        status, why = self.found(kind, "fused")
        if status == "ok":
            return True, "right when tried on this card"
        return False, f"{status} when tried on this card: {why}" if status else "not tried on this card"

    def draft_attention(self) -> tuple[bool, str]:
        """Whether drafts may take attention in e4m3 (wan_ui/engines/e4m3_attention.py)."""
        if self.hardware.device != "cuda":
            return False, "no GPU"
        entry = next(entry for entry in PROBES if entry.kind == "draft")
        if self._lacks(entry):
            return False, f"it needs the package {self._lacks(entry)} (fa3-fwd) and a Hopper GPU"
        status, why = self.found(entry.kind, entry.choice)
        if status == "ok":
            return True, "right when tried on this card"
        return False, f"{status} when tried on this card: {why}" if status else "not tried on this card"

    def untried(self, scheme: Scheme, wishes: dict) -> tuple[Probe, ...]:
        """What this load would take if it were right here, and nobody knows whether it is."""
        if self.hardware.device != "cuda":
            return ()
        wanted = {
            ("attention", wishes["attention"]),
            ("modulate", wishes["modulate_type"]),
            ("norm", wishes["rms_norm_type"]),
            ("rope", wishes["rope_type"]),
            ("gemm", wishes["t5_fp8_kernel"]),
        }
        if not self._no_triton():
            wanted |= {(kind, "fused") for kind in ("blocks", "decoder")} | {("draft", "fa3_e4m3")}
        if scheme.kind == "fp8":
            wanted |= {("gemm", scheme.name), ("gemm", wishes["fp8_kernel"])}
        if wishes["attention"] == "auto":  # it is a half of each step: worth looking for
            wanted |= {(kind, name) for kind in ("attention", "cross") for name in ATTENTION}
        wish = wishes["use_compile"]
        if (wish is True or (wish == "auto" and not self.model.embedded)) and not self._no_compiler():
            wanted.add(("compile", "on"))
        new = [
            entry
            for entry in PROBES
            if (entry.kind, entry.choice) in wanted
            and not (self._is_safe(entry.kind, entry.choice) or self._lacks(entry))
            and not self.found(entry.kind, entry.choice)[0]
        ]
        for kind in ("attention", "cross"):
            if any(entry.kind == kind for entry in new):  # what the others must be faster than
                new += [entry for entry in PROBES if (entry.kind, entry.choice) == (kind, "torch_sdpa")]
        return tuple(new)

    def found(self, kind: str, name: str) -> tuple[str, str]:
        """(status, why) of a kernel on this card at this model's shapes, the worst of them; ("", "") if untried."""
        if self.hardware.device != "cuda":
            return "", ""
        results = [
            result
            for result in probe_results.remembered(self.settings, self.hardware.name)
            if (result.kind, result.choice) == (kind, name) and result.shape.partition(" ")[0] == self.model.name
        ]
        for result in results:
            if result.status != "ok":
                return result.status, result.why
        return ("ok", "") if results else ("", "")

    def _best(self, kind: str, names: tuple[str, ...]) -> tuple[str, str]:
        safe = next((name for name in names if name in SAFE[kind]), SAFE[kind][0])
        if self.hardware.device != "cuda":
            return safe, "auto: no GPU"
        name, why = probe_results.best(kind, self.settings, self.model.name, names, self.hardware.name)
        if name:
            return name, f"auto: {why}"
        others = ", ".join(name for name in names if name not in SAFE[kind])
        return safe, "auto: torch's own" + (f"; {others} only after {COMMAND} probe" if others else "")

    def _is_safe(self, kind: str, name: str) -> bool:
        # fp8-sgl without its library is torch's own product: see wan_ui/patches/fp8_sgl.py.
        torch_as_sgl = name == "fp8-sgl" and "sgl_kernel" not in self.hardware.kernels
        return name in SAFE.get(kind, ()) or torch_as_sgl or self.hardware.device != "cuda"

    def _lacks(self, entry: Probe) -> str:
        """The package that a kernel needs and that is not installed, "" if there is none."""
        if entry.choice == "fp8-sgl":
            return ""
        needed = (name for name in entry.packages if name != "lightx2v")
        return next((name for name in needed if name not in self.hardware.kernels), "")

    def _no_triton(self) -> str:
        if "triton" not in self.hardware.kernels or self.hardware.capability < (8, 0):
            return "needs triton and an Ampere GPU or newer"
        return ""

    def _no_compiler(self) -> str:
        """ "" where torch.compile can make kernels, else what it lacks."""
        if self._no_triton():
            return self._no_triton()
        if not (shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")):
            return "triton needs a C compiler (gcc)"
        return ""
