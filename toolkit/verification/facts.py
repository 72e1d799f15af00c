"""Checks of a file against its manifests, without running it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from mvtool.ports import PortManifest, Quantization, Runtime, StateBinding, TensorPort
from mvtool.runtimes.base import FilePort, FilePorts
from mvtool.verification.report import Check, CheckResult, failed, passed

_SHOWN = 4


def check_embedded(embedded: PortManifest, listed: PortManifest) -> CheckResult:
    """The manifest inside the file is the one of the build manifest."""
    if embedded == listed:
        return passed(Check.EMBEDDED_MANIFEST, "the manifest in the file is the one in the build")
    differ = [name for name in PortManifest.model_fields if getattr(embedded, name) != getattr(listed, name)]
    return failed(
        Check.EMBEDDED_MANIFEST,
        f"the manifest in the file differs from the one in the build in: {', '.join(differ)}; "
        "the file or manifest.json was changed after conversion",
    )


def check_model(embedded: PortManifest, listed: PortManifest, reference: PortManifest) -> CheckResult:
    """File, build manifest and reference program are of one model."""
    faults = []
    for name, manifest in (("the file", embedded), ("the build", listed)):
        if manifest.model != reference.model:
            faults.append(f"{name} has a manifest of model {manifest.model!r}, the reference is {reference.model!r}")
        if manifest.logical_states != reference.logical_states:
            faults.append(f"the states in the manifest of {name} are not those of the reference program")
        if _logical_ports(manifest) != _logical_ports(reference):
            faults.append(f"inputs or outputs in the manifest of {name} are not those of the reference program")
    if faults:
        return failed(Check.MODEL, f"a manifest of another model: {'; '.join(faults)}")
    return passed(Check.MODEL, f"{reference.model}: {len(reference.states)} states, as in the reference program")


def _logical_ports(manifest: PortManifest) -> list[tuple[str, tuple[int, ...]]]:
    return [(port.name, port.logical_shape) for port in (*manifest.inputs, *manifest.outputs)]


def check_file_ports(ports: FilePorts, manifest: PortManifest) -> CheckResult:
    """The tensors of the file are those of its manifest: count, name, shape, type and scale."""
    faults = [
        *_side("input", ports.inputs, manifest.input_ports, manifest.runtime, ports.holds_quantization),
        *_side("output", ports.outputs, manifest.output_ports, manifest.runtime, ports.holds_quantization),
    ]
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        return failed(Check.FILE_PORTS, f"{'; '.join(faults[:_SHOWN])}{more}")
    count = len(ports.inputs) + len(ports.outputs)
    return passed(Check.FILE_PORTS, f"{count} tensors of the file are as the manifest says")


def _side(
    kind: str, found: tuple[FilePort, ...], listed: list[TensorPort], runtime: Runtime, scales: bool
) -> Iterator[str]:
    if len(found) != len(listed):
        yield f"the file has {len(found)} {kind}s, the manifest {len(listed)}"
        return
    by_name = {port.name: port for port in found}
    for position, port in enumerate(listed):
        # Core ML ports are a dictionary; the other two formats have positions.
        own = by_name.get(port.name) if runtime is Runtime.COREML else found[position]
        if own is None:
            yield f"the file has no {kind} named {port.name!r}"
        else:
            yield from _port_faults(f"{kind} {position} ({port.name!r})", own, port, runtime, scales)


def _port_faults(where: str, own: FilePort, port: TensorPort, runtime: Runtime, scales: bool) -> Iterator[str]:
    if own.name is not None and own.name != port.name:
        yield f"{where} is named {own.name!r} in the file"
    same_shape = math.prod(own.shape) == math.prod(port.shape) if runtime is Runtime.COREML else own.shape == port.shape
    if not same_shape:
        yield f"{where} has shape {own.shape} in the file, {port.shape} in the manifest"
    if own.dtype != port.dtype:
        yield f"{where} is {own.dtype} in the file, {port.dtype} in the manifest"
    wanted = port.quantization or port.grid
    if scales and not same_scale(own.quantization, wanted):
        yield f"{where} has {_scale(own.quantization)} in the file, {_scale(wanted)} in the manifest"


def same_scale(first: Quantization | None, second: Quantization | None) -> bool:
    """Whether two quantizations are one: equal zero points, scales equal as float32."""
    if first is None or second is None:
        return first is second
    return first.zero_point == second.zero_point and np.float32(first.scale) == np.float32(second.scale)


def _scale(quantization: Quantization | None) -> str:
    if quantization is None:
        return "no scale"
    return f"scale {quantization.scale:.6g} and zero point {quantization.zero_point}"


def check_ties(ports: FilePorts, manifest: PortManifest) -> CheckResult:
    """Each state enters and leaves with one scale and zero point, in the file and in the manifest."""
    faults = []
    for binding in manifest.states:
        inside = _file_scales(ports, binding, manifest.runtime) if ports.holds_quantization else None
        listed = tuple(port.quantization or port.grid for port in (binding.input, binding.output))
        for place, (enters, leaves) in (("the file", inside or (None, None)), ("the manifest", listed)):
            if not same_scale(enters, leaves):
                faults.append(
                    f"state {binding.state!r} enters with {_scale(enters)} and leaves with {_scale(leaves)} in {place}"
                )
    if faults:
        return failed(Check.TIED_STATES, f"untied scales: {'; '.join(faults[:_SHOWN])}")
    source = "in the file" if ports.holds_quantization else "in the manifest (the format keeps no scales)"
    return passed(Check.TIED_STATES, f"{len(manifest.states)} states keep their scale around the loop, {source}")


def _file_scales(
    ports: FilePorts, binding: StateBinding, runtime: Runtime
) -> tuple[Quantization | None, Quantization | None]:
    found = []
    for side, port in ((ports.inputs, binding.input), (ports.outputs, binding.output)):
        if runtime is Runtime.COREML:
            own = next((p for p in side if p.name == port.name), None)
        else:
            own = side[port.position] if port.position < len(side) else None
        found.append(own.quantization if own else None)
    return found[0], found[1]


def check_reset(embedded: PortManifest, listed: PortManifest, reference: PortManifest) -> CheckResult:
    """The reset bytes of every state are the encoded initial value of the reference program."""
    initial = {b.state: b.input.decode(b.reset.array(b.input)) for b in reference.states}
    faults = []
    for place, manifest in (("the file", embedded), ("the build", listed)):
        for binding in manifest.states:
            expected = binding.input.encode(initial[binding.state])
            found = binding.reset.array(binding.input)
            if found.tobytes() != expected.tobytes():
                faults.append(f"{_reset_fault(binding, found.reshape(-1), expected.reshape(-1))} (manifest of {place})")
    if faults:
        return failed(Check.RESET_VALUE, "; ".join(faults[:_SHOWN]))
    return passed(Check.RESET_VALUE, f"{len(embedded.states)} states start at the trained model's initial values")


def _reset_fault(
    binding: StateBinding,
    found: np.ndarray[tuple[int], np.dtype[np.generic]],
    expected: np.ndarray[tuple[int], np.dtype[np.generic]],
) -> str:
    index = int(np.argmax(found != expected))
    text = f"state {binding.state!r} resets to {found[index]}, expected {expected[index]}"
    quantization = binding.input.quantization
    if quantization is not None and found[index] == 0 and expected[index] == quantization.zero_point:
        text += ": it writes 0 instead of the zero point"
    return text
