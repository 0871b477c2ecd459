"""Our declared shapes of requests and answers against the service model botocore ships: every member, its requirement and constraints."""

import pathlib
import re

from botocore.loaders import Loader

SHAPES = pathlib.Path(__file__).parents[2] / "src/service/shapes"


def ours(table):
    """Parses the tables: kinds by constant name, and the members of every operation in the one that is asked for."""
    texts = {name: re.sub(r"//.*", "", (SHAPES / name).read_text()) for name in ("table.rs", "outputs.rs")}
    kinds = {}
    for text in texts.values():
        for name, body in re.findall(r"static (\w+): Kind = (.*?);\n", text, re.S):
            kinds[name] = body
    operations = {}
    listed = texts[table]
    listed = listed[listed.index("pub static") :]
    for name, body in re.findall(r'\("(\w+)", &\[(.*?)\]\)', listed, re.S):
        operations[name] = members(body)
    return kinds, operations


def members(body):
    return {name: (need == "must", kind) for need, name, kind in re.findall(r'(must|may)\("(\w+)", &(\w+)\)', body)}


def kind(kinds, name):
    body = kinds[name]
    if body.startswith("Text"):
        least, most, pattern = re.match(r'Text \{ min: (\d+), max: (\w+), pattern: r?"(.*)" \}', body, re.S).groups()
        return ("text", int(least), None if most == "ANY" else int(most.replace("_", "")), pattern)
    if body.startswith("Enum"):
        return ("enum", re.findall(r'"(\w+)"', body))
    if body.startswith("Integer"):
        least, most = re.match(r"Integer \{ min: (.*?), max: (.*?) \}", body).groups()
        return ("integer", None if least == "i64::MIN" else int(least), None if most == "i64::MAX" else int(most))
    if body.startswith("List"):
        of, least, most = re.match(r"List \{ of: &(\w+), min: (\d+), max: (\w+) \}", body).groups()
        return ("list", kind(kinds, of), int(least), None if most == "ANY" else int(most))
    if body.startswith("Structure"):
        return ("structure", {name: (need, kind(kinds, of)) for name, (need, of) in members(body).items()})
    return {"Kind::Time": ("time",), "Kind::Float": ("float",), "Kind::Boolean": ("boolean",)}[body]


def theirs(shapes, name):
    shape = shapes[name]
    if shape["type"] == "structure":
        required = shape.get("required", [])
        # A request without a ClientToken is accepted on purpose.
        return (
            "structure",
            {
                member: (member in required and member != "ClientToken", theirs(shapes, of["shape"]))
                for member, of in shape["members"].items()
            },
        )
    if shape["type"] == "list":
        return ("list", theirs(shapes, shape["member"]["shape"]), shape.get("min", 0), shape.get("max"))
    if shape["type"] == "timestamp":
        return ("time",)
    if shape["type"] in ("float", "boolean"):
        return (shape["type"],)
    if shape["type"] in ("integer", "long"):
        return ("integer", shape.get("min"), shape.get("max"))
    if "enum" in shape:
        return ("enum", shape["enum"])
    return ("text", shape.get("min", 0), shape.get("max"), shape.get("pattern", ""))


def compare(table, side):
    model = Loader().load_service_model("lookoutequipment", "service-2")
    kinds, operations = ours(table)
    assert sorted(operations) == sorted(model["operations"])
    for name, operation in model["operations"].items():
        expected = theirs(model["shapes"], operation[side]["shape"])[1] if side in operation else {}
        found = {member: (need, kind(kinds, of)) for member, (need, of) in operations[name].items()}
        assert found == expected, name


def test_the_declared_shapes_are_those_of_the_service_model():
    compare("table.rs", "input")


def test_the_declared_answers_are_those_of_the_service_model():
    compare("outputs.rs", "output")
