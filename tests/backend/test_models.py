# SPDX-License-Identifier: GPL-3.0-or-later
"""Which weights are here, what is said of them, whether the neural engine can have them, and the words
`models list | download | verify`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from backend import models
from backend.cli import main
from backend.errors import OutputError
from backend.models import catalogue, devices, store
from backend.models.availability import FoundModels, NotAvailable
from backend.models.devices import Driver, TorchBuild
from backend.options import Options
from tests.backend.fake_hub import REVISION, serving
from tests.backend.weight_writers import arrays_of, write_safetensors, write_weights

REAL = catalogue.FILES
NAMES = ("appearance_feature_extractor", "stitching_retargeting_module", "landmark")


@pytest.fixture(autouse=True)
def small_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the small files, and nobody's own folder."""
    monkeypatch.setattr(catalogue, "FILES", tuple(file for file in REAL if file.name in NAMES))
    monkeypatch.delenv(store.FOLDER_VARIABLE, raising=False)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU and a PyTorch for it."""
    pretend(monkeypatch, TorchBuild("2.13.0", (13, 0)), Driver(1, (13, 1)))


def pretend(monkeypatch, torch: TorchBuild | None, driver: Driver | None, system: str = "linux") -> None:
    monkeypatch.setattr(devices, "torch_build", lambda: torch)
    monkeypatch.setattr(devices, "nvidia_driver", lambda: driver)
    monkeypatch.setattr(devices.sys, "platform", system)


def fill(folder: Path) -> Path:
    """The released layout with whole files."""
    for file in catalogue.FILES:
        write_weights(file, folder / file.path)
    return folder


def test_the_catalogue_is_of_files_that_may_be_used_and_passed_on() -> None:
    assert {file.licence for file in REAL} == {"MIT"}
    assert len(REAL) == len({file.sha256 for file in REAL}) == 6
    assert all(len(file.sha256) == 64 and file.path.startswith("liveportrait/") for file in REAL)
    for file in REAL[:5]:
        assert file.layout is not None
        numbers = sum(4 * _count(shape) for keys in file.layout.values() for shape in keys.values())
        assert numbers < file.size  # the released sizes are of float32 numbers and some wrapping


def _count(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


@pytest.mark.parametrize(
    "inner",
    ["", "pretrained_weights", "ComfyUI/models", "models"],
    ids=["released", "in pretrained_weights", "ComfyUI", "in models"],
)
def test_the_known_layouts_are_recognised(inner: str, tmp_path: Path) -> None:
    folder = tmp_path / inner
    if "models" in inner:
        for file in catalogue.FILES:
            name = Path(file.path).with_suffix(".safetensors" if file.layout else ".onnx").name
            write_weights(file, folder / "liveportrait" / name)
    else:
        fill(folder)
    for named in (tmp_path, folder, folder / "liveportrait"):
        assert set(models.locate_all(named, catalogue.FILES)) == set(NAMES), named


def test_a_missing_file_is_fetched_to_where_the_others_are(tmp_path: Path) -> None:
    file = catalogue.FILES[0]
    assert store.target(tmp_path, file) == tmp_path / file.path
    assert store.target(tmp_path / "liveportrait", file) == tmp_path / file.path
    (tmp_path / "base_models").mkdir()
    assert store.target(tmp_path, file) == tmp_path / "base_models" / Path(file.path).name


def test_the_folder_is_the_named_one_else_the_environments_else_the_users(tmp_path, monkeypatch) -> None:
    assert models.models_folder(tmp_path) == tmp_path
    assert "liveportrait-blender" in str(models.models_folder())
    monkeypatch.setenv(store.FOLDER_VARIABLE, str(tmp_path / "ü"))
    assert models.models_folder() == tmp_path / "ü"


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"format": "liveportrait-models/1", "files": {"a": 3}}', "[" * 9999]
)
def test_a_damaged_record_is_forgotten(text: str, tmp_path: Path) -> None:
    (tmp_path / store.RECORD).write_text(text)
    assert store.read_record(tmp_path) == store.Record()


def test_records_come_back_and_tell_mixed_revisions(tmp_path: Path) -> None:
    record = store.Record(endpoint="https://hub", files={"a": store.Fetched(1, "f" * 64, "r")})
    store.write_record(tmp_path, record)
    assert store.read_record(tmp_path) == record
    assert record.revision == "r"
    record.files["b"] = store.Fetched(1, "f" * 64, "s")
    assert record.revision is None
    with pytest.raises(OutputError, match="cannot be written"):
        store.write_record(tmp_path / "missing", record)
    assert [path.name for path in tmp_path.iterdir()] == [store.RECORD]


# --- find ---------------------------------------------------------------------------------------------------


def test_with_weights_and_a_gpu_the_engine_is_there(gpu, tmp_path: Path) -> None:
    found = models.find(Options(models=fill(tmp_path)))
    assert isinstance(found, FoundModels)
    assert set(found.files) == set(NAMES) and found.device == "cuda" and found.why_cpu == ""
    (tmp_path / "liveportrait/landmark.onnx").unlink()
    found = models.find(Options(models=tmp_path))
    assert isinstance(found, FoundModels) and "landmark" not in found.files


def test_a_broken_landmark_model_is_left_out(gpu, tmp_path: Path) -> None:
    (fill(tmp_path) / "liveportrait/landmark.onnx").write_bytes(b"x")
    found = models.find(Options(models=tmp_path))
    assert isinstance(found, FoundModels) and "landmark" not in found.files


def lack(options: Options) -> NotAvailable:
    answer = models.find(options)
    assert isinstance(answer, NotAvailable)
    assert answer.why and answer.advice and "\n" not in answer.why + answer.advice
    return answer


def test_without_weights_the_command_that_fetches_them_is_named(gpu, tmp_path: Path) -> None:
    answer = lack(Options(models=tmp_path))
    assert answer.lack == "no-weights" and str(tmp_path) in answer.why
    assert answer.advice == f"Fetch them: python -m backend models download --models {tmp_path}"
    first = fill(tmp_path) / catalogue.FILES[0].path
    first.unlink()
    assert "no appearance_feature_extractor" in lack(Options(models=tmp_path)).why
    first.write_bytes(b"half a file")
    assert lack(Options(models=tmp_path)).lack == "bad-weights"


def test_without_pytorch_the_profile_is_named(monkeypatch, tmp_path: Path) -> None:
    pretend(monkeypatch, None, Driver(1, (12, 8)))
    answer = lack(Options(models=tmp_path))
    assert answer.lack == "no-torch" and "neural-cuda" in answer.advice
    pretend(monkeypatch, None, None)
    answer = lack(Options(engine="neural", models=tmp_path))
    assert answer.lack == "no-torch" and "neural-cpu" in answer.advice


@pytest.mark.parametrize(
    ("torch", "driver", "said", "advice"),
    [
        (TorchBuild("2.13.0", (13, 0)), None, "no NVIDIA driver", "--engine neural"),
        (TorchBuild("2.13.0", (13, 0)), Driver(0, (13, 0)), "shows no GPU", "--engine neural"),
        (TorchBuild("2.13.0", (13, 0)), Driver(1, (12, 8)), "runs CUDA 12.8, PyTorch needs 13.0", "driver"),
        (TorchBuild("2.13.0+cpu"), Driver(1, (13, 0)), "built for CPUs only", "neural-cuda"),
        (None, None, "no NVIDIA driver", "--engine neural"),
    ],
)
def test_without_a_gpu_the_reason_is_exact(torch, driver, said, advice, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pretend(monkeypatch, torch, driver)
    for options in (Options(models=fill(tmp_path)), Options("neural", tmp_path, device="cuda")):
        answer = lack(options)
        assert answer.lack == "no-gpu" and said in answer.why and advice in answer.advice
    if torch is not None:
        found = models.find(Options("neural", tmp_path))
        assert isinstance(found, FoundModels)
        assert found.device == "cpu" and said in found.why_cpu and said in found.why


def test_hidden_gpus_are_told_as_such(monkeypatch) -> None:
    pretend(monkeypatch, TorchBuild("2", (13, 0)), Driver(0, (13, 0)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" in lack(Options()).advice


def test_an_older_cuda_runs_on_a_newer_driver(monkeypatch, tmp_path: Path) -> None:
    pretend(monkeypatch, TorchBuild("2", (12, 8)), Driver(2, (12, 4)))
    assert isinstance(models.find(Options(models=fill(tmp_path))), FoundModels)


def test_macs_use_their_own_gpu(monkeypatch, tmp_path: Path) -> None:
    pretend(monkeypatch, TorchBuild("2"), None, "darwin")
    monkeypatch.setattr(devices.platform, "machine", lambda: "arm64")
    found = models.find(Options(models=fill(tmp_path)))
    assert isinstance(found, FoundModels) and found.device == "mps"
    assert "used as mps, not as cuda" in lack(Options("neural", tmp_path, device="cuda")).why
    monkeypatch.setattr(devices.platform, "machine", lambda: "x86_64")
    assert "Intel" in lack(Options(models=tmp_path)).why


def test_the_cpu_is_taken_only_for_those_who_ask(gpu, tmp_path: Path) -> None:
    answer = lack(Options(models=fill(tmp_path), device="cpu"))
    assert "--engine neural" in answer.advice
    found = models.find(Options("neural", tmp_path, device="cpu"))
    assert isinstance(found, FoundModels) and found.device == "cpu" and found.why_cpu == ""


def test_pytorch_is_told_from_its_version_file(monkeypatch, tmp_path: Path) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    version = "from typing import Optional\n__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\n"
    (package / "version.py").write_text(version + "hip: Optional[str] = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    importlib.invalidate_caches()
    assert devices.torch_build() == TorchBuild("2.13.0+cu130", (13, 0))
    (package / "version.py").write_text("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n")
    assert devices.torch_build() == TorchBuild("2.13.0+cpu")
    (package / "version.py").write_text("__version__ = '2'\nhip: Optional[str] = '7.1'\n")
    assert devices.torch_build() == TorchBuild("2", None, True)
    (package / "version.py").unlink()
    assert devices.torch_build() == TorchBuild("unknown")


def test_asking_imports_neither_pytorch_nor_the_hubs_library(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from backend import models\n"
        "from backend.options import Options\n"
        "models.find(Options('neural', Path(sys.argv[1]))); models.verify(Path(sys.argv[1]))\n"
        "print([name for name in ('torch', 'huggingface_hub', 'httpx2', 'cv2') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


# --- verify and the command line ----------------------------------------------------------------------------


def release(monkeypatch, folder: Path) -> dict[str, bytes]:
    """Takes the files in the folder for the released ones."""
    content = {file.path: (folder / file.path).read_bytes() for file in catalogue.FILES}
    known = tuple(
        replace(file, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for file, data in zip(catalogue.FILES, content.values(), strict=True)
    )
    monkeypatch.setattr(catalogue, "FILES", known)
    return content


def states(folder: Path, hashing: bool = True) -> dict[str, str]:
    return {item.file.name: item.state for item in models.verify(folder, hashing=hashing)}


def test_verify_tells_the_released_files_from_others(monkeypatch, tmp_path: Path) -> None:
    release(monkeypatch, fill(tmp_path))
    assert states(tmp_path) == dict.fromkeys(NAMES, "good")
    look = catalogue.FILES[0]
    other = {key: array + 1 for key, array in arrays_of(look).items()}
    (tmp_path / look.path).unlink()
    write_safetensors(tmp_path / f"{look.name}.safetensors", other)
    (tmp_path / catalogue.FILES[1].path).write_bytes(b"PK")
    (tmp_path / catalogue.FILES[2].path).unlink()
    assert list(states(tmp_path).values()) == ["note", "damaged", "missing"]
    assert list(states(tmp_path, hashing=False).values()) == ["good", "damaged", "missing"]


def test_verify_knows_what_was_fetched_by_name(monkeypatch, tmp_path: Path) -> None:
    landmark = catalogue.FILES[2]
    path = write_weights(landmark, tmp_path / landmark.path)
    fetched = store.Fetched(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest(), REVISION)
    store.write_record(tmp_path, store.Record(files={"landmark": fetched}))
    assert states(tmp_path)["landmark"] == "good"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert states(tmp_path)["landmark"] == "damaged"


def test_list_shows_every_file_with_size_and_licence(tmp_path: Path, capsys) -> None:
    assert main(["models", "list", "--models", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for file in catalogue.FILES:
        line = next(line for line in shown.splitlines() if file.path in line)
        assert "MIT" in line and "missing" in line and "MB" in line
    assert "python -m backend models download" in shown
    fill(tmp_path)
    assert main(["models", "list", "--models", str(tmp_path), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["repository"] == "KwaiVGI/LivePortrait"
    assert [item["state"] for item in content["files"]] == ["good"] * 3


def test_verify_has_a_line_a_file_and_an_exit_code(monkeypatch, tmp_path: Path, capsys) -> None:
    release(monkeypatch, fill(tmp_path))
    assert main(["models", "verify", "--models", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(line.startswith("ok ") for line in lines)
    (tmp_path / catalogue.FILES[0].path).write_bytes(b"x")
    assert main(["models", "verify", "--models", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("damaged ") and "models download" in lines[-1]
    assert main(["models", "verify", "--models", str(tmp_path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["usable"] is False


def test_download_shows_sizes_and_licences_first(monkeypatch, tmp_path: Path, capsys) -> None:
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    content = release(monkeypatch, fill(tmp_path / "hub"))
    folder = str(tmp_path / "mine")
    with serving(content) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        for name in (
            "HF_HUB_OFFLINE",
            "LIVEPORTRAIT_OFFLINE",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
        ):
            monkeypatch.delenv(name, raising=False)
        assert main(["models", "download", "--models", folder, "--dry-run"]) == 0
        shown = capsys.readouterr().out
        assert (
            all(file.path in shown for file in catalogue.FILES)
            and "MIT" in shown
            and "To fetch: 4.3 MB" in shown
        )
        assert not any(path.startswith("/content/") for _, path, _ in hub.requests)
        assert not (tmp_path / "mine").exists()
        assert main(["models", "download", "--models", folder, "--json"]) == 0
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [events[0]["event"], events[-1]["event"]] == ["plan", "result"]
        assert events[-1]["fetched"] == list(NAMES) and events[-1]["revision"] == REVISION
        assert events[-2]["done"] == events[-2]["total"] == events[0]["bytes"]
        assert main(["models", "download", "--models", folder, "--offline"]) == 0
        assert "nothing to fetch" in capsys.readouterr().out
        hub.api_status = 500
        (tmp_path / "mine" / catalogue.FILES[0].path).unlink()
        assert main(["models", "download", "--models", folder]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and said.startswith("error: ") and "HTTP 500" in said
        assert main(["models", "download", "--models", folder, "--revision", "v9"]) == 1


@pytest.mark.parametrize("words", [("models",), ("models", "dance"), ("models", "list", "--what")])
def test_wrong_words_are_bad_input(words: tuple[str, ...], capsys) -> None:
    assert main(list(words)) == 2
    assert capsys.readouterr().err.count("\n") == 1
