"""Files as people have them, from a seed, and what pandas and pyarrow read from them.

    odd_files.py DIRECTORY SEED COUNT

writes COUNT files into DIRECTORY and cases.json with, for each, what a reader must find: rows, or a refusal. Values are
written as the sixteen hexadecimal digits of their double, so that no parser stands between. Rows are expected as they were
written; wherever pandas can read a file, its rows must be the same, or this program ends with an assertion.
"""
import io, json, random, struct, sys
from datetime import datetime, timedelta, timezone

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

FORMATS = [d + s + t for d in ("%Y-%m-%d", "%Y/%m/%d", "%Y %m %d", "%Y%m%d") for s in ("T", " ") for t in ("%H:%M:%S", "%H:%M")]
FORMATS += ["%Y-%m-%d-%H-%M-%S", "%Y-%m-%d-%H:%M:%S", "%Y-%m-%d-%H:%M", "%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y-%m-%dT%H:%M:%S.%f"]
NOTHING = ["", "", "NaN", "nan", "null", "NULL", "None", "NA", "n/a", "N/A"]
NO_NUMBER = ["abc", "1,5", "1.2.3", "5 bar", "inf", "-Infinity", "1e999", "--", "0x10", "1 2", "Ω", "#REF!", "TRUE"]
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def bits(value):
    return None if value is None or value != value or value in (float("inf"), float("-inf")) else struct.pack(">d", value).hex()


def micros(moment):
    return (moment - EPOCH) // timedelta(microseconds=1)


def number(rng):
    kind = rng.randrange(6)
    if kind == 0:
        return str(rng.randrange(-1000, 1000))
    if kind == 1:
        return repr(rng.uniform(-1e3, 1e3))
    if kind == 2:
        return f"{rng.uniform(-1, 1):.{rng.randrange(1, 18)}e}"
    if kind == 3:
        return f"+{rng.uniform(0, 100):.3f}"
    if kind == 4:
        return repr(struct.unpack(">d", struct.pack(">Q", rng.getrandbits(62)))[0])
    return f"{rng.uniform(-100, 100):.2f}".replace("0.", ".")


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


def cell(rng, text, style):
    must = any(c in text for c in ',"\n\r')
    return quoted(text) if must or style == "all" or style == "some" and rng.random() < 0.3 else text


class Rows:
    """A file of rows: a time and some sensors."""

    def __init__(self, rng):
        self.rng = rng
        self.columns = [f"s{k}" for k in range(rng.randrange(1, 7))]
        self.format = rng.choice(FORMATS)
        self.step = timedelta(minutes=rng.randrange(1, 90))
        self.start = datetime(rng.randrange(1971, 2090), rng.randrange(1, 13), rng.randrange(1, 29), rng.randrange(24), rng.randrange(60), tzinfo=timezone.utc)
        self.time = rng.choice(["Timestamp", "Date", "t", "Zeit [UTC]"])

    def row(self, at):
        rng, moment = self.rng, self.start + at * self.step
        text = moment.strftime(self.format)
        texts = [rng.choice(NOTHING) if rng.random() < 0.1 else rng.choice(NO_NUMBER) if rng.random() < 0.04 else number(rng) for _ in self.columns]
        pad = rng.random() < 0.05
        return [text] + [f" {t} " if pad else t for t in texts]

    def expected(self, texts, truth=False):
        time = micros(datetime.strptime(texts[0].strip(), self.format).replace(tzinfo=timezone.utc))
        cells = [t.strip() for t in texts[1:]] + [""] * (len(self.columns) - len(texts) + 1)
        return [time, [bits(1.0) if truth and t == "TRUE" else None if t in NOTHING or t in NO_NUMBER else bits(float(t)) for t in cells]]


def rows_case(rng):
    f = Rows(rng)
    style, end = rng.choice(["none", "none", "some", "all"]), rng.choice(["\n", "\n", "\r\n", "\r"])
    count = rng.randrange(0, 60)
    order = list(range(count))
    if rng.random() < 0.2:
        rng.shuffle(order)
    odd = rng.choice([None] * 6 + ["long", "short", "trailing", "open-quote", "after-quote", "note", "huge", "latin", "blank", "bad-time", "duplicate-time"])
    head, peer = [f.time] + f.columns, True
    refuse = None
    lines, expected, table, misfits, bad_times = [], [], [], [], 0
    spoiled = rng.randrange(count) if count else None
    for place, at in enumerate(order):
        texts = f.row(at)
        text, fits = ",".join(cell(rng, t, style) for t in texts), True
        here = place == spoiled
        if odd == "long" and here:
            # As the first row it would tell pandas how wide the file is.
            text, fits, peer = text + ",7,5", False, peer and place > 0
        elif odd == "short" and here:
            texts = texts[: rng.randrange(1, len(texts) + 1)]
            text = ",".join(cell(rng, t, style) for t in texts)
            if len(texts) == 1 and not text:
                continue
        elif odd == "trailing":
            text, peer = text + ",", False
        elif odd == "open-quote" and here:
            at_cell = rng.randrange(1, len(texts))
            parts = [cell(rng, t, "none") for t in texts]
            parts[at_cell] = '"' + number(rng)
            text, fits, peer = ",".join(parts), False, False
            if '"' in "".join(parts[:at_cell] + parts[at_cell][1:].split() + parts[at_cell + 1:]):
                continue
        elif odd == "after-quote" and here:
            text, fits, peer = text.rsplit(",", 1)[0] + ',"5" bar', False, False
        elif odd == "note" and here:
            texts[-1] = "two" + end + 'lines, "quoted"'
            text = ",".join(cell(rng, t, style) for t in texts)
        elif odd == "huge" and here:
            texts[-1] = "x" * rng.choice([70_000, 200_000])
            text = ",".join(cell(rng, t, style) for t in texts)
        elif odd == "latin" and here:
            texts[-1] = "caf\udce9"
            text = ",".join(cell(rng, t, style) for t in texts)
        elif odd == "blank" and here:
            lines += ["", "  "][: rng.randrange(1, 3)]
        elif odd == "bad-time" and here:
            bad_times += 1
            text, fits = "yesterday," + text.split(",", 1)[1], None
        elif odd == "duplicate-time" and here and place:
            texts[0] = f.row(order[place - 1])[0]
            text = ",".join(cell(rng, t, style) for t in texts)
        lines.append(text)
        if fits:
            plain = [t if t not in ("caf\udce9",) and "lines" not in t and len(t) < 50_000 else "abc" for t in texts]
            expected.append(f.expected(plain))
            # A history has booleans too.
            table.append(f.expected(plain, truth=True))
        elif fits is False:
            misfits.append(1 + sum(1 + l.count(end) for l in lines[:-1]) + 1)
    if odd == "duplicate-head":
        head[-1] = head[0]
    spoil = rng.random()
    body = end.join([",".join(cell(rng, t, style) for t in head)] + lines) + (end if rng.random() < 0.8 else "")
    data = body.encode("utf-8", "surrogateescape")
    if spoil < 0.02:
        head[-1:] = [head[-1], head[-1]]
        data, refuse = (",".join(head) + end + end.join(lines)).encode("utf-8", "surrogateescape"), "twice"
    elif spoil < 0.04:
        data, refuse = body.replace(",", ";").encode("utf-8", "surrogateescape"), "semicolons"
        if "," in ",".join(head).replace(",", ""):
            refuse = "column"
    elif spoil < 0.06:
        data, refuse = body.encode("utf-16", "replace"), "UTF-16"
    elif spoil < 0.07:
        data, refuse = b"", "empty"
    elif spoil < 0.08:
        data, refuse = (f'"{f.time},' + ",".join(f.columns) + end + end.join(lines)).encode("utf-8", "surrogateescape"), "quote"
    elif rng.random() < 0.15:
        data = b"\xef\xbb\xbf" + data
    if refuse is None and peer:
        same_as_pandas(data, f, expected, bad_times)
    return "csv", data, {"refuse": refuse, "time": f.time, "columns": f.columns, "rows": expected, "table": table, "misfits": misfits, "bad_times": bad_times}


def same_as_pandas(data, f, expected, bad_times):
    frame = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False, na_filter=False, on_bad_lines="skip", encoding="utf-8-sig", encoding_errors="replace", index_col=False)
    assert [c.strip() for c in frame.columns] == [f.time] + f.columns, (frame.columns, f.columns)
    found = []
    for record in frame.itertuples(index=False):
        texts = ["" if not isinstance(t, str) else t for t in record]
        try:
            moment = datetime.strptime(texts[0].strip(), f.format)
        except ValueError:
            continue
        def value(text):
            try:
                return None if text.strip() in NOTHING or "0x" in text else bits(float(text))
            except ValueError:
                return None
        found.append([micros(moment.replace(tzinfo=timezone.utc)), [value(t) for t in texts[1:]]])
    assert found == expected, (f.format, [pair for pair in zip(found, expected) if pair[0] != pair[1]][:2], len(found), len(expected))


def labels_case(rng):
    fmt, end = rng.choice(FORMATS), rng.choice(["\n", "\r\n"])
    spans, lines = [], []
    for _ in range(rng.randrange(0, 8)):
        start = datetime(2020, rng.randrange(1, 13), rng.randrange(1, 28), rng.randrange(24), rng.randrange(60), tzinfo=timezone.utc)
        stop = start + timedelta(minutes=rng.randrange(0, 5000))
        texts = [start.strftime(fmt), stop.strftime(fmt)] + (["a note, with 3 words"] if rng.random() < 0.2 else [])
        lines.append(",".join(cell(rng, t, rng.choice(["none", "all"])) for t in texts))
        spans.append([micros(start), micros(stop)])
    bad = None
    odd = rng.randrange(8)
    if odd == 0 and lines:
        bad = rng.randrange(len(lines))
        wrong = [
            lambda l: l.replace(",", ";"),
            lambda l: ",".join(reversed(l.replace('"', "").split(",")[:2])) if spans[bad][0] < spans[bad][1] else "x1,y",
            lambda l: l.replace('"', "").split(",")[0],
            lambda l: "13/01/2024 00:00,13/01/2024 06:00",
            lambda l: "2024-01-03 00:00:00+09:00,2024-01-03 06:00:00+09:00",
            lambda l: '"' + l.replace('"', ""),
            lambda l: "label 1,label 2",
        ]
        lines[bad] = rng.choice(wrong)(lines[bad])
        bad += 1
    elif odd in (1, 2):
        lines.insert(0, rng.choice(["start,end", "Start;End", '"from","to","note"']))
    data = (end.join(lines) + end).encode()
    if rng.random() < 0.2:
        data = b"\xef\xbb\xbf" + data
    return "labels", data, {"spans": spans, "bad_line": bad}


def tags_case(rng):
    end = rng.choice(["\n", "\r\n"])
    tags = [[f"tag{k}", rng.choice(["C", "", "mm/s", "°C", "a, b", '5" pipe']), f"part{rng.randrange(4)}"] for k in range(rng.randrange(1, 40))]
    columns, header = [0, 1, 2], rng.random() < 0.8
    if header and rng.random() < 0.3:
        rng.shuffle(columns)
    names = ["Tag", "UOM", "Subsystem"]
    lines = [",".join(rng.choice([names[c], names[c].upper()]) for c in columns)] if header else []
    bad, style = None, rng.choice(["none", "some", "all"])
    spoiled = rng.randrange(len(tags)) if rng.random() < 0.25 else None
    for k, tag in enumerate(tags):
        texts = list(tag)
        line = ",".join(cell(rng, texts[c], style) for c in columns)
        if k == spoiled:
            bad = len(lines) + 1
            line = rng.choice([f'{texts[0]},"C,{texts[2]}', f"{texts[0]},C", f"a b,C,{texts[2]}", f"{texts[0]},C,a/b", "tag0,C,part0" if k else ",C,part0"])
            if columns != [0, 1, 2]:
                line = ",,x"
        lines.append(line)
    data = (end.join(lines) + end).encode()
    if bad is None:
        frame = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False, header=0 if header else None, encoding="utf-8-sig")
        frame.columns = [c.lower() if isinstance(c, str) else names[c].lower() for c in frame.columns]
        assert [list(r) for r in frame[["tag", "uom", "subsystem"]].itertuples(index=False)] == tags
    if rng.random() < 0.2:
        data = b"\xef\xbb\xbf" + data
    return "tags", data, {"tags": tags, "bad_line": bad}


def component_case(rng):
    """Several CSVs of one component, each with some of its columns: merged as pandas' combine_first does, later files first."""
    columns = [f"s{k}" for k in range(rng.randrange(1, 5))]
    start, merged, files, duplicates = datetime(2024, 1, 1, tzinfo=timezone.utc), pd.DataFrame(columns=columns, dtype=float), [], 0
    for _ in range(rng.randrange(1, 6)):
        has = sorted(rng.sample(columns, rng.randrange(1, len(columns) + 1)))
        at = [rng.randrange(40) for _ in range(rng.randrange(1, 30))]
        if rng.random() < 0.5:
            at = sorted(set(at))
        values = [[rng.randrange(1000) / 8 for _ in has] for _ in at]
        shown = rng.sample(has, len(has))
        text = ",".join(["Timestamp"] + shown) + "\n" + "".join(
            (start + timedelta(minutes=a)).strftime("%Y-%m-%d %H:%M") + "," + ",".join(str(row[has.index(c)]) for c in shown) + "\n" for a, row in zip(at, values))
        files.append(text)
        frame = pd.DataFrame(values, index=at, columns=has)
        frame = frame[~frame.index.duplicated(keep="last")]
        merged = frame.combine_first(merged) if len(merged) else frame.reindex(columns=columns)
    merged = merged.reindex(columns=columns).sort_index()
    rows = [[micros(start + timedelta(minutes=int(a))), [bits(v) for v in row]] for a, row in zip(merged.index, merged.to_numpy().tolist())]
    return "component", "\0".join(files).encode(), {"columns": columns, "rows": rows}


def parquet_case(rng):
    """A Parquet history, sorted by time or not, in one of the types and layouts that writers use. None of its rows lies years
    from the others: such rows are left out on purpose."""
    count = rng.randrange(1, 400)
    step = rng.choice([1, 60, 300])
    start = int(datetime(rng.randrange(1990, 2040), 1, 1, tzinfo=timezone.utc).timestamp())
    at = [start + k * step for k in range(count)]
    if rng.random() < 0.3 and count > 2:
        at[count // 2:] = [t + rng.choice([86_400, 700_000]) for t in at[count // 2:]]
    if rng.random() < 0.2 and count > 2:
        at[1] = at[0]
    unit = rng.choice(["ms", "us", "ns"]) if at[-1] < 9_000_000_000 else rng.choice(["ms", "us"])
    zone = rng.choice([None, "UTC"])
    scale = {"ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    table = {"Timestamp": pa.array([t * scale for t in at], pa.int64()).cast(pa.timestamp(unit, zone))}
    columns, values = ["a", "b", "c"][: rng.randrange(1, 4)], {}
    for name in columns:
        kind = rng.choice([pa.float64(), pa.float32(), pa.int32(), pa.int64(), pa.int16(), pa.uint8(), pa.bool_()])
        if pa.types.is_floating(kind):
            raw = [rng.choice([rng.uniform(-10, 10)] * 9 + [float("nan")] + [float("inf")] * (rng.random() < 0.1)) for _ in at]
        elif kind == pa.bool_():
            raw = [rng.random() < 0.5 for _ in at]
        else:
            raw = [rng.randrange(0, 100) for _ in at]
        if rng.random() < 0.4:
            raw = [None if rng.random() < 0.2 else v for v in raw]
        table[name] = pa.array(raw, kind)
        values[name] = table[name].cast(pa.float64()).to_pylist()
    if rng.random() < 0.3:
        table["status"] = pa.array([rng.choice(["NORMAL", "BROKEN", None]) for _ in at])
    out = io.BytesIO()
    pq.write_table(pa.table(table), out, row_group_size=rng.choice([7, 50, 1000]), compression=rng.choice(["none", "snappy", "gzip", "zstd", "brotli", "lz4"]),
                   use_dictionary=rng.random() < 0.5, data_page_version=rng.choice(["1.0", "2.0"]), write_statistics=rng.random() < 0.5)
    frame = pd.DataFrame({name: values[name] for name in columns}, index=at, dtype=float)
    frame = frame[~frame.index.duplicated(keep="last")].sort_index()
    rows = [[t * 10**6, [bits(v) for v in row]] for t, row in zip(frame.index, frame.to_numpy().tolist())]
    return "parquet", out.getvalue(), {"columns": columns, "rows": rows}


def main():
    directory, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    cases, kinds = [], [rows_case] * 6 + [labels_case] * 2 + [tags_case] * 2 + [component_case, parquet_case]
    for k in range(count):
        rng = random.Random(f"{seed}/{k}")
        kind, data, case = rng.choice(kinds)(rng)
        with open(f"{directory}/{k}", "wb") as out:
            out.write(data)
        cases.append({"file": str(k), "kind": kind, **case})
    json.dump(cases, open(f"{directory}/cases.json", "w"))


main()
