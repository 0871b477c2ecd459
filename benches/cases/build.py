"""Clean builds, debug and release."""

from harness import ROOT, measure, scratch

ORDER = 90
OPT_IN = "takes half an hour"


def run(_rounds):
    rows = []
    for name, flags in [("debug", []), ("release", ["--release"])]:
        with scratch() as directory:
            result = measure(["cargo", "build", "--locked", *flags], {"CARGO_TARGET_DIR": str(directory / "t")}, cwd=ROOT)
        rows.append([name, f"{result['cpu_s']:.0f}", f"{result['wall_s']:.0f}"])
    return [{"title": "Clean build", "head": ["", "CPU s", "wall s"], "rows": rows}]
