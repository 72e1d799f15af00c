"""Every figure of a report as JSON: what `mvtool report --json` prints and the page holds for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

import mvtool
from mvtool.bench.record import Launch, Reading, Record
from mvtool.bench.report import Entry, Report
from mvtool.bench.statistics import launch_peak_bytes, samples_ms, to_json

REPORT_SCHEMA: Final = "mvtool.report/1"


def document(report: Report) -> dict[str, Any]:
    """The whole report; keys carry units."""
    return {
        "schema": REPORT_SCHEMA,
        "mvtool": mvtool.__version__,
        "records": [_record(entry) for entry in report.entries],
        **report.verdicts.document(),
    }


def _record(entry: Entry) -> dict[str, Any]:
    summary = to_json(entry.summary)
    # Figures of a stand-in may be as stable as they like, they say nothing.
    summary["stability"]["meaningless"] = entry.meaningless
    return {
        "number": entry.number,
        "file": entry.file,
        "baseline": entry.baseline,
        "stamps": [stamp.word for stamp in entry.stamps],
        "build": entry.record.artifact.build,
        "summary": summary,
        "macs_per_second": entry.macs_per_second,
        "macs_per_byte": entry.intensity,
        "launches": launch_figures(entry.record),
        "memory": memory_figures(entry.record),
        "heat": heat_figures(entry.record.readings),
        "record": entry.record.model_dump(mode="json", by_alias=True, exclude={"launches", "readings"}),
    }


def launch_figures(record: Record) -> list[dict[str, Any]]:
    """Per launch: number of calls, median, 99th percentile and slowest call, first call and load."""
    rows = []
    for launch in record.launches:
        inference = samples_ms(launch)
        row = {
            "invokes": inference.size,
            "median_ms": float(np.median(inference)),
            "p99_ms": float(np.percentile(inference, 99)),
            "max_ms": float(inference.max()),
            "first_ms": launch.first_ns / 1e6,
            "load_ms": launch.load_ns / 1e6,
        }
        rows.append(row)
    return rows


def memory_figures(record: Record) -> list[dict[str, Any]]:
    """The marks of the launch that needed most memory; none where instructions were emulated."""
    return [] if record.device.emulated else [mark.model_dump(mode="json") for mark in heaviest(record).memory]


def heaviest(record: Record) -> Launch:
    """The launch with the highest peak memory over its baseline."""
    return max(record.launches, key=lambda launch: launch_peak_bytes(launch)[0])


def heat_figures(readings: Sequence[Reading]) -> dict[str, Any]:
    """First, lowest and highest of each temperature, first and last charge, the worst throttling and load."""
    series: dict[str, list[float]] = {}
    for reading in readings:
        battery = {} if reading.battery_c is None else {"battery": reading.battery_c}
        for name, value in {**battery, **reading.temperatures_c}.items():
            series.setdefault(name, []).append(value)
    charge = [reading.battery_percent for reading in readings if reading.battery_percent is not None]
    loads = [reading.load_average for reading in readings if reading.load_average is not None]
    statuses = [reading.thermal_status for reading in readings if reading.thermal_status is not None]
    return {
        "temperatures_c": {
            name: {"first": values[0], "lowest": min(values), "highest": max(values)} for name, values in series.items()
        },
        "battery_percent": {"first": charge[0], "last": charge[-1]} if charge else None,
        "charging": any(reading.charging for reading in readings),
        "thermal_status": max(statuses, default=None),
        "governors": sorted({governor for reading in readings for governor in reading.governors.values()}),
        "load_average": max(loads, default=None),
    }
