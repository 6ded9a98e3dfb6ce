"""The one table to paste."""

from renalseg.benchmark.measure import Result


def as_markdown(results: list[Result]) -> str:
    """One table to paste: a column a case, a row a step, and the machine above it."""
    machine = results[0].machine
    head = f"{machine['device']}, {machine['threads']} threads, {machine['precision']}; preset {machine['preset']}"
    mirror = "mirror averaged" if machine["mirror_z"] else "no mirror"
    head += f", weights {machine['weights']}, {mirror}; median of {machine['repeats']}"
    if machine["device"] != machine["processor"]:
        head += f"; {machine['processor']}"
    head += f", {machine['memory_gb']} GB"
    versions = f"renalseg {machine['renalseg']}, torch {machine['torch']}, Python {machine['python']}"
    steps = list(dict.fromkeys(step for result in results for step in result.seconds))
    rows = [("slices x rows x columns", [" x ".join(map(str, r.shape)) for r in results])]
    rows += [("region of the fine stages", [" x ".join(map(str, r.box)) if r.box else "none" for r in results])]
    on_device = any(r.device_by_step_mb for r in results)
    what = "s / peak host / peak device memory, MB" if on_device else "s / peak host memory, MB"
    rows += [(f"{step}, {what}", [_step(r, step, on_device) for r in results]) for step in steps]
    rows += [
        ("**from file to files, s**", [f"**{r.wall_s:.2f}**" for r in results]),
        ("networks, TFLOP", [f"{sum(r.tflop.values()):.3f}" for r in results]),
        ("inside the networks, % of the time", [f"{100 * r.network_share:.0f}" for r in results]),
        ("networks, TFLOP/s", [f"{r.network_tflops:.3f}" for r in results]),
        ("matrix products here, TFLOP/s", [f"{r.matrix_tflops:.3f}" for r in results]),
        ("networks, % of it", [f"{100 * r.limit_share:.0f}" for r in results]),
        ("peak host memory, MB", [f"{r.host_mb:.0f}" for r in results]),
        ("peak device memory, MB", ["-" if r.device_mb is None else f"{r.device_mb:.0f}" for r in results]),
    ]
    lines = [f"{head}; {versions}, {machine['system']}", ""]
    lines += ["| |" + "".join(f" {r.case} |" for r in results), "|---|" + "---:|" * len(results)]
    lines += [f"| {name} |" + "".join(f" {value} |" for value in values) for name, values in rows]
    said = [f"{r.case}: {warning}" for r in results for warning in r.warnings]
    return "\n".join([*lines, *([""] if said else []), *said]) + "\n"


def _step(result: Result, step: str, on_device: bool) -> str:
    figures = [f"{result.seconds.get(step, 0):.3f}", f"{result.host_by_step_mb.get(step, 0):.0f}"]
    if on_device:
        peak = result.device_by_step_mb.get(step)
        figures.append("-" if peak is None else f"{peak:.0f}")
    return " / ".join(figures)
