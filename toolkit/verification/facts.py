"""Checks of a file against its manifests, without running it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from mvtool.ports import Binding, PortManifest, Quantization, Runtime, TensorPort
from mvtool.runtimes.base import FilePort, FilePorts, ScaleHome
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
        *_side("input", ports.inputs, manifest.input_ports, manifest.runtime, ports.scale_home),
        *_side("output", ports.outputs, manifest.output_ports, manifest.runtime, ports.scale_home),
    ]
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        return failed(Check.FILE_PORTS, f"{'; '.join(faults[:_SHOWN])}{more}")
    count = len(ports.inputs) + len(ports.outputs)
    return passed(Check.FILE_PORTS, f"{count} tensors of the file are as the manifest says")


def _side(
    kind: str, found: tuple[FilePort, ...], listed: list[TensorPort], runtime: Runtime, home: ScaleHome
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
            yield from _port_faults(f"{kind} {position} ({port.name!r})", own, port, runtime, home)


def _port_faults(where: str, own: FilePort, port: TensorPort, runtime: Runtime, home: ScaleHome) -> Iterator[str]:
    if own.name is not None and own.name != port.name:
        yield f"{where} is named {own.name!r} in the file"
    same_shape = math.prod(own.shape) == math.prod(port.shape) if runtime is Runtime.COREML else own.shape == port.shape
    if not same_shape:
        yield f"{where} has shape {own.shape} in the file, {port.shape} in the manifest"
    if own.dtype != port.dtype:
        yield f"{where} is {own.dtype} in the file, {port.dtype} in the manifest"
    wanted = (port.quantization,) if port.quantization else ()
    if home is ScaleHome.PORTS and not _agree(own.scales, wanted):
        yield f"{where} has {_scales(own.scales)} in the file, {_scales(wanted)} in the manifest"


def _agree(first: Sequence[Quantization], second: Sequence[Quantization]) -> bool:
    """Whether both name one and the same scale, or both none; scales are equal as float32."""
    return bool(first) == bool(second) and len({_key(scale) for scale in (*first, *second)}) <= 1


def _key(quantization: Quantization) -> tuple[float, int]:
    return float(np.float32(quantization.scale)), quantization.zero_point


def _scales(scales: Sequence[Quantization]) -> str:
    listed = [f"scale {scale.scale:.6g}, zero point {scale.zero_point}" for scale in scales]
    return " and ".join(listed) or "no scale"


def check_ties(ports: FilePorts, manifest: PortManifest) -> CheckResult:
    """Each state enters and leaves with one scale and zero point, in the file as in the manifest."""
    faults, tied = [], 0
    for binding in manifest.states:
        sides = [(port, _port_of(ports.inputs, port)) for port in binding.inputs]
        others = [(port, _port_of(ports.outputs, port)) for port in binding.outputs]
        listed = [port.quantization or port.grid for port, _ in (*sides, *others)]
        # A state that is float on one side, like a running mean in Core ML, has no scale to share.
        inside = ports.scale_home is not ScaleHome.NOWHERE
        inside = inside and (any(listed) or all(own.scales for _, own in (*sides, *others)))
        enters = [_scales_at(port, own, inside) for port, own in sides]
        leaves = [_scales_at(port, own, inside) for port, own in others]
        tied += bool(enters[0])
        untied = [found for found in (*enters, *leaves) if not _agree(enters[0], found)]
        if untied:
            faults.append(
                f"state {binding.state!r} enters with {_scales(enters[0])} and leaves with {_scales(untied[0])}"
            )
    if faults:
        return failed(Check.TIED_STATES, f"untied scales: {'; '.join(faults[:_SHOWN])}")
    if ports.scale_home is ScaleHome.NOWHERE:
        source = "in the manifest; the format keeps none, so the simulation check proves those of the file"
    else:
        source = "in the file and in the manifest"
    return passed(
        Check.TIED_STATES, f"{tied} of {len(manifest.states)} states are int8; each keeps one scale, {source}"
    )


def _scales_at(port: TensorPort, own: FilePort, inside: bool) -> list[Quantization]:
    """What the manifest says of a port, and where asked, the file."""
    listed = port.quantization or port.grid
    return [*([listed] if listed else []), *(own.scales if inside else ())]


def _port_of(side: tuple[FilePort, ...], port: TensorPort) -> FilePort:
    """The tensor of the file for `port`: by name where the format has names, else by position."""
    named = [own for own in side if own.name == port.name]
    if named:
        return named[0]
    return side[port.position] if port.position < len(side) else FilePort(None, (), "")


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
    binding: Binding,
    found: np.ndarray[tuple[int], np.dtype[np.generic]],
    expected: np.ndarray[tuple[int], np.dtype[np.generic]],
) -> str:
    index = int(np.argmax(found != expected))
    text = f"state {binding.state!r} resets to {found[index]}, expected {expected[index]}"
    quantization = binding.input.quantization
    if quantization is not None and found[index] == 0 and expected[index] == quantization.zero_point:
        text += ": it writes 0 instead of the zero point"
    return text
