"""Nothing on a disk is code: no module of the package loads what could run."""

import ast
from pathlib import Path

import keras_echo

PACKAGE = Path(keras_echo.__file__).parent
RUNS_CODE = {
    "pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "eval",
    "exec", "allow_pickle", "load_model", "import_module", "runpy",
}  # fmt: skip
ALLOWED = {
    # To and from worker processes of this very training, through pipes.
    "reading/worker_process.py": {"pickle"},
    # By names that stand in these modules.
    "__init__.py": {"import_module"},
    "_optional.py": {"import_module"},
}


def names_in(tree):
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield module.partition(".")[0]
                yield from (alias.name for alias in names)
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                yield name


def test_nothing_is_loaded_that_could_run():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        used = RUNS_CODE & set(names_in(ast.parse(path.read_text())))
        if used:
            found[path.relative_to(PACKAGE).as_posix()] = used
    assert found == ALLOWED
