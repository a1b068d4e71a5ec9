"""Reading the YAML contracts: values, the line of every key, and errors that name file, line and key.

Belongs here: parsing YAML and turning a pydantic failure into one readable line. Does not belong here: what any
contract means (each domain package owns its pydantic models).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from zantara_pipeline.errors import InputError

Model = TypeVar("Model", bound=BaseModel)
LineOf = Callable[..., int]

PACKAGED = Path(__file__).parent / "contracts"


def load_yaml(path: Path) -> tuple[Any, LineOf]:
    """Parse one YAML file.

    Returns
    -------
    (data, line_of) : the parsed value, and ``line_of(*keys) -> int``: the 1-based line of that key path
        (its nearest known ancestor when the path itself is absent).

    Raises
    ------
    InputError : unreadable file, invalid YAML or a key given twice, with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError("it is no UTF-8 text", path, "save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path, "check the path and its permissions") from None
    try:
        node, data = _parsed(text)
        lines: dict[tuple[Any, ...], int] = {}
        if node is not None:
            _collect_lines(node, (), lines, path)
    except InputError:  # it is a ValueError too, and says all there is to say
        raise
    except RecursionError:  # an alias inside what it stands for never ends
        what = "not valid YAML: it refers to itself, or is nested too deeply"
        raise InputError(what, path, "write it without aliases") from None
    except yaml.YAMLError as error:
        line, problem = _fault(error, text)
        raise InputError(f"not valid YAML: {problem}", f"{path}:{line}", "mend that line") from None
    except ValueError as error:  # a value that looks like a date but is none, such as 2026-02-30
        line = _bad_scalar_line(yaml.compose(text, Loader=yaml.SafeLoader))
        raise InputError(f"not a valid value: {error}", f"{path}:{line}", "mend that line") from None

    def line_of(*keys: Any) -> int:
        for length in range(len(keys), -1, -1):
            if keys[:length] in lines:
                return lines[keys[:length]]
        return 1

    return data, line_of


def _parsed(text: str) -> tuple[yaml.Node | None, Any]:
    """The nodes of a text, and what they stand for. libyaml is nine times faster, and a run reads 170 files; where it is absent
    or fails, the one in Python parses, whose errors are the ones that people see."""
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.compose(text, Loader=fast), yaml.load(text, Loader=fast)
    except (yaml.YAMLError, ValueError, RecursionError):
        return yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)


def _fault(error: yaml.YAMLError, text: str) -> tuple[int, str]:
    """The line that is no YAML, and what is wrong there."""
    if isinstance(error, yaml.reader.ReaderError):
        return text.count("\n", 0, int(error.position)) + 1, "a character that no YAML may hold"
    mark = getattr(error, "problem_mark", None)
    return (mark.line + 1 if mark else 1), str(getattr(error, "problem", None) or error)


def _bad_scalar_line(node: yaml.Node | None) -> int:
    if isinstance(node, yaml.ScalarNode):
        try:
            yaml.safe_load(node.value)
        except ValueError:
            return int(node.start_mark.line) + 1
        except yaml.YAMLError:
            return 0
    inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else []
    inner += node.value if isinstance(node, yaml.SequenceNode) else []
    return max((_bad_scalar_line(part) for part in inner), default=0)


def _collect_lines(node: yaml.Node, keys: tuple[Any, ...], lines: dict[tuple[Any, ...], int], path: Path) -> None:
    lines.setdefault(keys, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode) and not _is_text(node.value):
        where = f"{path}:{node.start_mark.line + 1}"
        raise InputError("a text that UTF-8 cannot carry, or with a NUL", where, "write it without")
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            here = (*keys, key_node.value)
            if here in lines:
                where = f"{path}:{key_node.start_mark.line + 1}"
                raise InputError(f"key '{key_node.value}' stands twice", where, "remove one of the two")
            lines[here] = key_node.start_mark.line + 1
            _collect_lines(value_node, here, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _collect_lines(item, (*keys, index), lines, path)


def _is_text(value: str) -> bool:
    """Whether every engine can hold it; \\ud800 and \\0 in quotes stand for what some cannot."""
    return not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in value)


def parse_contract(model: type[Model], path: Path) -> Model:
    """Read a YAML file into a pydantic model; the first thing wrong becomes an InputError with file, line and key."""
    data, line_of = load_yaml(path)
    if not isinstance(data, dict):
        raise InputError("the file holds no mapping of keys", path, "see the packaged contracts for an example")
    return validate_contract(model, data, path, line_of)


def validate_contract(model: type[Model], data: Any, path: Path, line_of: LineOf) -> Model:
    """Validate already loaded data; see `parse_contract`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # a misspelt required key is both an unknown and a missing one: the unknown one names the line to mend
        first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
        keys = _keys_of(first, data)
        name = ".".join(str(key) for key in keys) or "(file)"
        raise InputError(
            f"key '{name}': {_explain(first, model)}", f"{path}:{line_of(*keys)}", _advice(first, model)
        ) from None


def _keys_of(problem: Any, data: Any) -> tuple[Any, ...]:
    """The path of keys in the file; pydantic's goes on with the kinds that it tried. A missing key is its last."""
    keys: list[Any] = []
    for number, key in enumerate(problem["loc"], 1):
        inside = key in data if isinstance(data, dict) else isinstance(key, int) and isinstance(data, list)
        if inside or (problem["type"] == "missing" and number == len(problem["loc"])):
            keys.append(key)
            data = data[key] if inside else None
    if problem["type"] in _OF_KIND:
        keys.append(_kind_key(problem))
    return tuple(keys)


_OF_KIND = ("union_tag_invalid", "union_tag_not_found")
"""A mapping whose keys depend on one of them, `kind` of a sink: that one is wrong, or is not there."""


def _kind_key(problem: Any) -> str:
    return str(problem["ctx"]["discriminator"]).strip("'")


def _explain(problem: Any, model: type[BaseModel]) -> str:
    if problem["type"] == "extra_forbidden":
        return "unknown key"
    if problem["type"] == "union_tag_not_found":
        return "Field required"
    if problem["type"] == "union_tag_invalid":
        return f"'{problem['ctx']['tag']}' is none of {problem['ctx']['expected_tags']}"
    if problem["loc"] and problem["loc"][-1] == "[key]" and problem["type"] == "string_type":
        return "a name is text, and this is none"
    said = str(problem["msg"]).removeprefix("Value error, ")
    return _CLASS.sub("", said).replace("valid tuple", "valid list").replace("Tuple should", "List should")


# What to do, where pydantic's words alone leave a person who writes YAML guessing.
_TODO = {
    "string_type": "put it in quotes", "tuple_type": "write it as [a, b]", "missing": "add it",
    "union_tag_not_found": "add it", "model_type": "write its keys and values, or leave it out", "dict_type": "write its keys and values, or leave it out",
}  # fmt: skip
_LIKE = {
    r"^\d+-\d+-\d+$": "write it like 1-0-0",
    r"^[^@\s]+@[^@\s]+$": "give an e-mail address",
    r"^[a-z][a-z0-9_]{0,39}$": "write small letters, digits and underscores, a letter first, 40 characters at most",
    r"^[A-Z_][A-Z0-9_]*$": "name the environment variable that holds it, like 'SLACK_URL'; secrets stand in no contract",
    "^[A-Z]{2}$": "write the two capital letters of ISO 3166",
}
"""What to write instead of what does not match a pattern of the contracts."""
_CLASS = re.compile(r" or instance of \w+")


def _advice(problem: Any, model: type[BaseModel]) -> str | None:
    if problem["type"] == "string_type" and isinstance(problem.get("input"), (dict, list, type(None))):
        return "give a text"
    if problem["type"] == "string_pattern_mismatch":
        return _LIKE.get(problem["ctx"]["pattern"])
    if problem["type"] == "union_tag_invalid":
        near = difflib.get_close_matches(
            problem["ctx"]["tag"], re.findall(r"'(\w+)'", problem["ctx"]["expected_tags"]), n=1
        )
        return f"did you mean '{near[0]}'?" if near else None
    if problem["type"] != "extra_forbidden":
        return _TODO.get(problem["type"])
    known = sorted(_field_names(model, set()))
    near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
    return f"did you mean '{near[0]}'?" if near else "remove it or correct its name"


def _field_names(model: type[BaseModel], seen: set[type[BaseModel]]) -> set[str]:
    """Names of all fields of a model and of the models inside it, for spelling hints."""
    if model in seen:
        return set()
    seen.add(model)
    names = set(model.model_fields)
    for field in model.model_fields.values():
        for inner in _models_in(field.annotation):
            names |= _field_names(inner, seen)
    return names


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def overlay_files(dirs: Sequence[Path], pattern: str) -> dict[str, Path]:
    """Relative name -> path over contract folders; a file in a later folder replaces the same name in an earlier one."""
    found: dict[str, Path] = {}
    for folder in dirs:
        for path in sorted(folder.glob(pattern)):
            found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


_FOLDERS = ("tracking_plan", "experiments")
_EVENT = re.compile(r"^event:", re.MULTILINE)


def refuse_misnamed(dirs: Sequence[Path]) -> None:
    """Contracts of a shop that stand under another name than they are sought by would be left out without a word.

    Raises
    ------
    InputError : a name that differs from one of the package's by a slip (.yml, tracking-plan, adapter.yaml), a folder that
        is one too deep or too high, one without any contract.
    """
    for folder in dirs:
        _refuse_slips(folder)
        refuse_misplaced(folder)
        if not _contracts(folder):
            below = next((path for path in sorted(folder.glob("*/")) if _contracts(path)), None)
            todo = f"name {below}" if below else f"put one there: {', '.join(sorted(_names()))}"
            raise InputError("no contract in this folder", folder, todo)


def refuse_misplaced(folder: Path) -> None:
    """
    Raises
    ------
    InputError : the folder is one too deep, or events stand in it and not in its tracking_plan/.
    """
    strange = [path for path in sorted(folder.glob("*.y*ml")) if path.name not in _names() and path.is_file()]
    place = folder.absolute()
    if strange and place.name in _FOLDERS:
        raise InputError("it is a part of a folder of contracts", folder, f"name the folder above it, {place.parent}")
    for path in strange:
        if _EVENT.search(path.read_text(encoding="utf-8", errors="replace")):
            raise InputError(
                "an event stands in the folder of contracts itself", path, "put it into tracking_plan/ there"
            )


def _names() -> set[str]:
    return {path.name for path in PACKAGED.glob("*.yaml")} | {f"{folder}/*.yaml" for folder in _FOLDERS}


def _contracts(folder: Path) -> list[Path]:
    """What of a folder is read."""
    return [path for name in _names() for path in folder.glob(name)]


def _refuse_slips(folder: Path) -> None:
    known = {name.removesuffix("/*.yaml") for name in _names()}
    for path in sorted(folder.glob("*")):
        near = difflib.get_close_matches(path.name, known - {path.name}, n=1, cutoff=0.8)
        if path.name not in known and near and (path.is_dir() == (near[0] in _FOLDERS)):
            raise InputError("no contract has this name", path, f"did you mean '{near[0]}'?")
    for path in sorted(found for inner in _FOLDERS for found in (folder / inner).glob("*.yml")):
        raise InputError("contracts end with .yaml", path, f"name it {path.stem}.yaml")
