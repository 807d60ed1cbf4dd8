"""Malformed requests: each gives one line on standard error that names the argument, exit code 1, and no finished run.

The cases are command lines, configuration files and data files, as a user would get them wrong. The fixture `here`
holds the files; `{here}` in a case stands for its folder. The words that the line has to hold are given with each case.
Composing a configuration takes Hydra half a second, so where only a value is wrong, the rest is composed once.
"""

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from _pytest.mark import ParameterSet
from omegaconf import DictConfig, OmegaConf
from torch.cuda import is_available as cuda_is_available

from experiments.cli import failures, run_job
from experiments.run.jobs import Job
from tests.conftest import SMOKE, CommandLine, Result, configuration, run_in
from vi_core.training.checkpoint import MARK, digest

VAE = ("--run", "experiment=vae_digits", "trainer=smoke", "plot.enabled=false")
MNIST = ("experiment=vae_mnist", "trainer=smoke", "plot.enabled=false", "dataset.download=false")
CSV = (*SMOKE, "dataset=csv")
CONF = ("--config-dir={here}/conf",)
IDX_FILES = {"train-images": 3, "train-labels": 1, "t10k-images": 3, "t10k-labels": 1}
Case = tuple[tuple[str, ...], tuple[str, ...]]
"""(arguments, what the line must hold)."""

KEYS: dict[str, Case] = {
    "unknown key": ((*SMOKE, "optimizer.lrr=1"), ("optimizer.lrr", "Did you mean 'optimizer.lr'")),
    "unknown key of the trainer": ((*SMOKE, "trainer.executon=eager"), ("Did you mean 'trainer.execution'",)),
    "unknown key of the figures": ((*SMOKE, "+plot.enabledd=true"), ("Did you mean 'plot.enabled'",)),
    "unknown key at the top": ((*SMOKE, "sed=1"), ("sed ", "Did you mean 'seed'")),
    "unknown key of an unknown group": ((*SMOKE, "optimzer.lr=1"), ("optimzer", "Did you mean 'optimizer'")),
    "key of another part": ((*SMOKE, "optimizer=sgd", "optimizer.beta1=0.5"), ("optimizer.beta1",)),
    "added key": ((*SMOKE, "+unknown=1"), ("unknown is not a setting",)),
    "added key of a part": ((*SMOKE, "+optimizer.momentum=1"), ("optimizer.momentum", "Known: lr")),
    "added key of the figures": ((*SMOKE, "+plot.color=red"), ("plot.color",)),
    "added key that is there": ((*SMOKE, "+optimizer.lr=1"), ("optimizer.lr",)),
    "fidelity of one run": ((*SMOKE, "fidelity=quick"), ("task=reproduce fidelity=quick",)),
    "removed key": ((*SMOKE, "~seed"), ("leave ~seed out",)),
    "removed part": ((*SMOKE, "~optimizer"), ("optimizer", "optimizer=<name>")),
    "part without a name": ((*SMOKE, "optimizer=null"), ("null",)),
    "experiment without a name": (("--run", "experiment=null"), ("null",)),
    "unknown option": ((*SMOKE, "optimizer=adm"), ("optimizer=adm", "Did you mean 'adam'", "robbins_monro")),
    "unknown experiment": (("--run", "experiment=bbv"), ("experiment=bbv", "Did you mean 'bbvi'")),
    "unknown nested option": ((*SMOKE, "family/positive=softpls"), ("family/positive=softpls", "softplus")),
    "unknown group": ((*SMOKE, "optimiser=adam"), ("optimiser", "Did you mean 'optimizer'")),
    "unknown device": ((*SMOKE, "device=tpu"), ("device=tpu", "cpu")),
    "unknown device by value": ((*SMOKE, "device.name=tpu"), ("device.name=tpu", "cpu")),
    "unknown task": ((*SMOKE, "task=plto"), ("task=plto", "Did you mean 'plot'")),
    "unknown stopping rule": ((*SMOKE, "trainer/stopping=patience"), ("trainer/stopping=patience", "plateau")),
    "unknown flag": ((*SMOKE, "--fast"), ("--fast",)),
    "unknown configuration folder": (("--config-dir=/nowhere", *SMOKE), ("/nowhere",)),
    "unknown launcher": (("-m", *SMOKE[1:], "hydra/launcher=cluster"), ("hydra/launcher=cluster",)),
    "no equals sign": ((*SMOKE, "seed"), ("seed",)),
    "two equals signs": ((*SMOKE, "seed==1"), ("seed==1",)),
    "no key": ((*SMOKE, "=1"), ("=1",)),
    "open bracket": ((*SMOKE, "optimizer.lr=[1,"), ("[1,",)),
    "open quote": ((*SMOKE, "note='x"), ("'x",)),
    "open interpolation": ((*SMOKE, "note='${nothing}'"), ("nothing",)),
    "sweep without -m": ((*SMOKE, "seed=0,1"), ("seed=0,1", "--multirun")),
    "text for an integer": ((*SMOKE, "seed=one"), ("seed=one", "integer")),
    "fraction of a replicate": ((*SMOKE, "replicates=2.5"), ("replicates=2.5", "integer")),
    "text for a boolean": ((*SMOKE, "plot.enabled=maybe"), ("plot.enabled=maybe", "bool")),
    "expectation that is a number": ((*SMOKE, "expected=[1]"), ("expected=[1]",)),
    "range without -m": ((*SMOKE, "seed=range(2)"), ("seed=range(2)", "--multirun")),
}
TYPES: dict[str, Case] = {
    "fraction for an integer": ((*SMOKE, "estimator.num_samples=1.5"), ("estimator.num_samples=1.5", "an integer")),
    "text for a number": ((*SMOKE, "optimizer.lr=fast"), ("optimizer.lr='fast'", "a number")),
    "boolean for a number": ((*SMOKE, "optimizer.lr=true"), ("optimizer.lr=True", "a number")),
    "null for a number": ((*SMOKE, "model.rate=null"), ("model.rate=None", "a number")),
    "number for a list": ((*VAE, "model.hidden=5"), ("model.hidden=5", "a list")),
    "text for a part": ((*SMOKE, "estimator.coefficient=none"), ("estimator.coefficient", "_target_")),
    "text for steps": ((*SMOKE, "trainer.steps=many"), ("trainer.steps='many'", "an integer or null")),
    "not auto": ((*SMOKE, "trainer.log_every=always"), ("trainer.log_every='always'", "auto")),
    "not one of": ((*SMOKE, "trainer.on_nonfinite=ignore"), ("trainer.on_nonfinite='ignore'", "raise, stop, skip")),
    "no number of threads": ((*SMOKE, "threads=many"), ("threads=many", "auto")),
    "class that does not exist": ((*SMOKE, "bound._target_=vi_core.bounds.elbo.ELBOO"), ("bound._target_", "ELBOO")),
    "class of another kind": (
        (*SMOKE, "bound._target_=vi_core.models.autoencoders.vae.VAE"),
        ("bound._target_", "VAE", "no Bound"),
    ),
    "no class": ((*SMOKE, "bound._target_=os.getcwd"), ("bound._target_", "os.getcwd")),
}
RANGES: dict[str, Case] = {
    "negative seed": ((*SMOKE, "seed=-1"), ("seed=-1",)),
    "seed too large": ((*SMOKE, "seed=9223372036854775808"), ("seed=9223372036854775808",)),
    "no replicates": (("--run", "replicates=0"), ("replicates=0", "at least 1")),
    "no threads": ((*SMOKE, "threads=0"), ("threads=0", "from 1 to 1024")),
    "narrow dtype": ((*SMOKE, "dtype=float16"), ("dtype=float16", "float32")),
    "figure format": ((*SMOKE, "plot.format=gif"), ("plot.format=gif", "png, pdf")),
    "smoothing": ((*SMOKE, "plot.smoothing=0"), ("plot.smoothing=0", "at least 1")),
    "negative prior": ((*SMOKE, "model.rate=-1"), ("model.rate=-1", "positive")),
    "infinite prior": ((*SMOKE, "model.loc=.inf"), ("model.loc=inf", "finite")),
    "negative scale": ((*SMOKE, "family.scale=-1"), ("family.scale=-1", "positive")),
    "start that is no number": ((*SMOKE, "family.loc=.nan"), ("family.loc=nan", "finite")),
    "negative learning rate": ((*SMOKE, "optimizer.lr=-1"), ("optimizer.lr=-1", "positive")),
    "infinite learning rate": ((*SMOKE, "optimizer.lr=.inf"), ("optimizer.lr=inf",)),
    "learning rates for other replicates": ((*SMOKE, "optimizer.lr=[1,2,3]"), ("optimizer.lr", "3 ", "replicates=2")),
    "no learning rate": ((*SMOKE, "optimizer.lr=[]"), ("optimizer.lr=[]",)),
    "decay": ((*SMOKE, "optimizer.beta2=1"), ("optimizer.beta2=1", "[0, 1)")),
    "power": ((*SMOKE, "optimizer=robbins_monro", "optimizer.power=0.5"), ("optimizer.power=0.5", "(0.5, 1]")),
    "too few samples": ((*SMOKE, "estimator.num_samples=2"), ("estimator.num_samples=2", "at least 3", "LeaveOneOut")),
    "no sample": ((*SMOKE, "estimator=pathwise", "estimator.num_samples=0"), ("estimator.num_samples=0",)),
    "chunk of no samples": (
        (*SMOKE, "estimator=pathwise", "estimator.chunk_size=0"),
        ("estimator.chunk_size=0", "at least 1", "null"),
    ),
    "unknown type of products": ((*SMOKE, "matmul=float16"), ("matmul=float16", "auto, bfloat16, tf32")),
    "tf32 on a processor": ((*VAE, "matmul=tf32"), ("matmul=tf32", "CUDA", "matmul=auto")),
    "setting of version 0.1": ((*SMOKE, "trainer.compile=fast"), ("trainer.execution='fast'", "auto, eager, replay")),
    "execution": ((*SMOKE, "trainer.execution=fast"), ("trainer.execution='fast'", "auto, eager, replay")),
    "no point": ((*SMOKE, "dataset.num_points=0"), ("dataset.num_points=0", "at least 1")),
    "size that was not drawn": ((*SMOKE, "dataset=normal_numpy", "dataset.num_points=11"), ("dataset.num_points=11",)),
    "everything held out": ((*VAE, "dataset.num_test=1797"), ("dataset.num_test=1797",)),
    "no latent": ((*VAE, "model.latent_dim=0"), ("model.latent_dim=0",)),
    "layers without widths": (
        ("model=hierarchical_vae", "dataset=digits", "model.latent_dims=[2]"),
        ("model.widths=[[200, 200], [100, 100]]", "each of 1 latents"),
    ),
    "likelihood of shared latents": ((*SMOKE, "trainer.likelihood_samples=5"), ("trainer.likelihood_samples=5", "=0")),
    "one stage": (
        (*SMOKE, "optimizer/schedule=staged", "optimizer.schedule.stages=1"),
        ("optimizer.schedule.stages=1", "at least 2"),
    ),
    "empty layer": ((*VAE, "family.hidden=[4,0]"), ("family.hidden=[4, 0]",)),
    "unknown activation": ((*VAE, "model.activation=rel"), ("model.activation=rel", "Did you mean 'relu'")),
    "binarization": ((*VAE, "dataset.binarization=treshold"), ("dataset.binarization", "Did you mean 'threshold'")),
    "both steps and epochs": ((*SMOKE, "trainer.epochs=3"), ("trainer.steps=", "trainer.epochs=3", "null")),
    "neither steps nor epochs": ((*SMOKE, "trainer.steps=null"), ("trainer.steps=None", "trainer.epochs=None")),
    "no steps": ((*SMOKE, "trainer.steps=0"), ("trainer.steps=0",)),
    "no checkpoints": ((*SMOKE, "trainer.checkpoint_every=0"), ("trainer.checkpoint_every=0",)),
    "window": (
        (*SMOKE, "trainer/stopping=plateau", "trainer.stopping.window=0"),
        ("trainer.stopping.window=0", "at least 1"),
    ),
    "more points than memory": ((*SMOKE, "dataset.num_points=100000000000000"), ("not enough memory",)),
    "more numbers than integers": (
        (*SMOKE[:-1], "experiment=categorical_vae_digits", "model.classes=1000000000000000000"),
        ("not enough memory",),
    ),
}
PAIRS: dict[str, Case] = {
    "closed-form KL of the IWELBO": (
        (*SMOKE, "bound=iwelbo", "estimator=closed_form_kl"),
        ("closed_form_kl", "iwelbo"),
    ),
    "control variate of the IWELBO": ((*SMOKE, "bound=iwelbo"), ("control-variate", "bound=iwelbo", "bound=elbo")),
    "exact IWELBO": ((*SMOKE, "bound=iwelbo", "estimator=exact"), ("estimator=exact", "bound=iwelbo")),
    "mean field of local latents": ((*VAE, "family=mean_field"), ("family=mean_field", "amortized_normal")),
    "Normal-Gamma of a VAE": ((*VAE, "family=normal_gamma"), ("family=normal_gamma", "mu and tau")),
    "encoder of shared latents": ((*SMOKE, "family=amortized_normal"), ("family=amortized_normal", "mean_field")),
    "replicates of networks": ((*VAE, "replicates=2"), ("replicates=2", "seed")),
    "bfloat16 without networks": ((*SMOKE, "matmul=bfloat16"), ("matmul=bfloat16", "MeanField", "matmul=auto")),
    "bfloat16 of float64": ((*VAE, "matmul=bfloat16", "dtype=float64"), ("matmul=bfloat16", "dtype=float64")),
    "coordinate ascent by samples": (
        (*SMOKE, "optimizer=coordinate_ascent", "estimator=pathwise"),
        ("optimizer=coordinate_ascent", "estimator=exact"),
    ),
    "coordinate ascent of a VAE": ((*VAE, "optimizer=coordinate_ascent"), ("conjugate", "optimizer=adam")),
    "exact ELBO of a VAE": ((*VAE, "estimator=exact"), ("closed form", "estimator=pathwise")),
    "VAE of numbers": ((*VAE, "dataset=normal"), ("VAE", "dataset=digits")),
    "Normal of images": ((*SMOKE, "dataset=digits"), ("model=normal_gamma", "dataset=normal")),
    "minibatches of shared latents": ((*SMOKE, "dataset.batch_size=10"), ("dataset.batch_size=10", "null")),
}
FILES: dict[str, Case] = {
    "no CSV named": (CSV, ("dataset.path",)),
    "YAML that does not parse": ((*CONF, *SMOKE, "optimizer=broken"), ("broken.yaml", "line 2")),
    "experiment that does not parse": (("--run", *CONF, "experiment=broken"), ("broken.yaml", "line 2")),
    "YAML with a typo": ((*CONF, *SMOKE, "optimizer=typo"), ("optimizer.lrr", "Did you mean 'optimizer.lr'")),
    "YAML without a class": ((*CONF, *SMOKE, "optimizer=bare"), ("optimizer", "_target_")),
    "experiment with an unknown key": (("--run", *CONF, "experiment=unknown"), ("experiment/unknown", "sed")),
    "experiment with an unknown part": (
        ("--run", *CONF, "experiment=misspelt"),
        ("optimizer=adm", "Did you mean 'adam'"),
    ),
    "infinite tolerance": (("--run", *CONF, "experiment=infinite"), ("expected", "final.median", "finite")),
    "class of another program": (("--run", *CONF, "experiment=elsewhere"), ("bound._target_", "this.Nothing")),
    "anchor inside itself": ((*CONF, *SMOKE, "optimizer=recursive"), ("recursive.yaml", "*a")),
    "anchors that explode": ((*CONF, *SMOKE, "optimizer=exploding"), ("exploding.yaml", "nodes")),
    "expectation without a value": (("--run", *CONF, "experiment=no_value"), ("expected", "value")),
}
DATA: dict[str, Case] = {
    "missing CSV": ((*CSV, "dataset.path={here}/no.csv"), ("no.csv", "does not exist", "dataset.path")),
    "CSV that is a folder": ((*CSV, "dataset.path={here}/conf"), ("conf", "folder")),
    "empty CSV": ((*CSV, "dataset.path={here}/empty.csv"), ("empty.csv", "is empty")),
    "NaN in a CSV": ((*CSV, "dataset.path={here}/nan.csv"), ("nan.csv", "row 2 (line 3)", "'nan'")),
    "column of texts": ((*CSV, "dataset.path={here}/text.csv", "dataset.column=name"), ("'name'", "'ada'")),
    "unknown column": ((*CSV, "dataset.path={here}/text.csv", "dataset.column=hight"), ("hight", "'height'")),
    "CSV of no row": ((*CSV, "dataset.path={here}/none.csv"), ("none.csv", "no row")),
    "ragged CSV": ((*CSV, "dataset.path={here}/ragged.csv"), ("ragged.csv", "row 2 (line 3)")),
    "CSV that is no text": ((*CSV, "dataset.path={here}/binary.csv"), ("binary.csv", "UTF-8")),
    "more points than rows": (
        (*CSV, "dataset.path={here}/text.csv", "dataset.num_points=9"),
        ("dataset.num_points=9",),
    ),
    "missing IDX": ((*MNIST, "dataset.root={here}/nowhere"), ("nowhere/MNIST/raw", "lacks", "dataset.root")),
    "truncated IDX": ((*MNIST, "dataset.root={here}/truncated"), ("train-images-idx3-ubyte", "truncated")),
    "wrong checksum": ((*MNIST, "dataset.root={here}/corrupt"), ("train-images-idx3-ubyte", "MD5")),
    "IDX of another type": ((*MNIST, "dataset.root={here}/floats"), ("train-images-idx3-ubyte", "IDX")),
}
FOLDERS: dict[str, Case] = {
    "below a file": ((*SMOKE, "hydra.run.dir={here}/empty.csv/run"), ("empty.csv/run", "hydra.run.dir")),
    "a file": ((*SMOKE, "hydra.run.dir={here}/empty.csv"), ("empty.csv", "hydra.run.dir")),
    "nothing can be made in /proc": ((*SMOKE, "hydra.run.dir=/proc/run"), ("/proc/run",)),
    "sweep below a file": (("-m", *SMOKE[1:], "hydra.sweep.dir={here}/empty.csv/x"), ("empty.csv/x",)),
    "holds a run": ((*SMOKE, "hydra.run.dir={here}/run"), ("/run already holds a run", "resume=")),
    "holds a killed run": ((*SMOKE, "hydra.run.dir={here}/killed"), ("/killed already holds a run", "resume=")),
    "task without a run": (("task=plot",), ("task=plot", "run=<folder>")),
    "figures of nothing": (("task=plot", "run={here}/nowhere"), ("nowhere", "config.yaml")),
    "figures of no run": (("task=plot", "run={here}/conf"), ("conf", "config.yaml")),
    "figures of a failed run": (("task=plot", "run={here}/failed"), ("failed", "optimizer.lr")),
    "figures of a killed run": (("task=plot", "run={here}/killed"), ("killed", "summary.json")),
    "figures in another format": (("task=plot", "run={here}/run", "plot.format=gif"), ("gif",)),
    "damaged summary": (("task=plot", "run={here}/damaged_summary"), ("damaged_summary", "damaged")),
    "damaged trace": (("task=plot", "run={here}/damaged_trace"), ("trace.csv", "damaged")),
    "table of no sweep": (("task=collect", "run={here}/run"), ("/run holds no jobs",)),
    "page elsewhere": (
        ("task=report", "run={here}/run", "hydra.run.dir=there"),
        ("task=report writes to run=<folder>",),
    ),
    "table of nothing": (("task=collect", "run={here}/nowhere"), ("nowhere",)),
    "empty run": (("task=plot", "run="), ("run=",)),
    "resume nothing": (("resume={here}/nowhere",), ("resume=", "nowhere", "config.yaml")),
    "resume no run": (("resume={here}/conf",), ("resume=", "conf", "config.yaml")),
    "resume a name that is empty": (("resume=",), ("resume=",)),
    "resume without a checkpoint": (("resume={here}/failed",), ("checkpoint.pt",)),
    "resume a truncated checkpoint": (("resume={here}/truncated_checkpoint",), ("checkpoint.pt", "damaged")),
    "resume another file": (("resume={here}/list_checkpoint",), ("checkpoint.pt", "version")),
    "resume another version": (("resume={here}/other_version",), ("checkpoint.pt", "version 99")),
    "resume an incomplete checkpoint": (("resume={here}/incomplete_checkpoint",), ("checkpoint.pt", "step")),
    "resume with other replicates": (("resume={here}/run", "replicates=3"), ("replicates=", "resumed")),
    "resume with another seed": (("resume={here}/run", "seed=3"), ("seed=", "resumed")),
    "resume in another dtype": (("resume={here}/run", "dtype=float32"), ("dtype=", "resumed")),
    "resume with another part": (("resume={here}/run", "optimizer=sgd"), ("optimizer=", "resumed")),
    "resume on other data": (("resume={here}/run", "dataset.seed=3"), ("dataset.seed=3", "resumed", "new run")),
    "resume with another prior": (("resume={here}/run", "model.loc=4"), ("model.loc=4", "resumed", "new run")),
    "resume with another stopping rule": (("resume={here}/run", "trainer/stopping=plateau"), ("resumed", "new run")),
    "resume an edited configuration": (("resume={here}/edited_config",), ("config.yaml", "edited")),
    "resume with an unknown key": (("resume={here}/run", "sed=1"), ("sed",)),
    "resume a configuration that does not parse": (("resume={here}/damaged_config",), ("config.yaml",)),
    "resume a sweep that is not there": (
        ("-m", *SMOKE[1:], "sweep.resume={here}/nowhere"),
        ("sweep.resume=", "nowhere"),
    ),
    "resume a sweep with one run": ((*SMOKE, "sweep.resume={here}/conf"), ("sweep.resume=", "-m")),
}
NO_GPU = pytest.mark.skipif(cuda_is_available(), reason="there is a GPU")


def parameters(*groups: dict[str, Case]) -> list[ParameterSet]:
    """Cases for pytest, by name."""
    return [pytest.param(*case, id=name) for group in groups for name, case in group.items()]


COMMAND_LINES = parameters(KEYS, PAIRS, FILES, FOLDERS)
COMMAND_LINES += [pytest.param((*SMOKE, "device=cuda"), ("device=cuda", "device=cpu"), id="no GPU", marks=NO_GPU)]
VALUES = parameters(TYPES, RANGES, DATA)


def write_idx(root: Path, shape: tuple[int, ...], kind: int = 8, missing_bytes: int = 0) -> None:
    """Write the four files of a small MNIST; labels have one dimension."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, dimensions in IDX_FILES.items():
        size = shape[:dimensions]
        content = bytes(torch.Size(size).numel() - missing_bytes)
        header = struct.pack(f">{1 + dimensions}I", kind << 8 | dimensions, *size)
        (folder / f"{name}-idx{dimensions}-ubyte").write_bytes(header + content)


def bomb(levels: int) -> str:
    """YAML whose aliases stand for 9 ** levels nodes."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


def write_configurations(conf: Path) -> None:
    """Write what a user may get wrong in a configuration folder of their own."""
    (conf / "optimizer").mkdir(parents=True)
    (conf / "experiment").mkdir()
    target = "_target_: vi_core.optimizers.sgd.SGD\n"
    experiment = "# @package _global_\n"
    files = {
        "optimizer/broken": "a: [1, 2\nb: }",
        "optimizer/typo": f"{target}lrr: 1.0\n",
        "optimizer/bare": "lr: 1.0\n",
        "experiment/broken": "a: [1, 2\nb: }",
        "experiment/unknown": f"{experiment}sed: 3\n",
        "experiment/misspelt": f"{experiment}defaults:\n  - override /optimizer: adm\n",
        "optimizer/recursive": f"{target}lr: &a [*a]\n",
        "optimizer/exploding": target + bomb(9),
        "experiment/infinite": f"{experiment}expected:\n  - {{quantity: final.median, value: 1.0, tolerance: .inf}}\n",
        "experiment/elsewhere": f"{experiment}bound:\n  _target_: this.Nothing\n",
        "experiment/no_value": f"{experiment}expected:\n  - {{quantity: final.median, tolerance: 1.0}}\n",
    }
    for name, text in files.items():
        (conf / f"{name}.yaml").write_text(text)


def write_data(here: Path) -> None:
    """Write damaged data files."""
    texts = {
        "empty": b"",
        "nan": b"x\n1\nnan\n3\n",
        "text": b"name,height\nada,1.5\nbob,1.7\n",
        "none": b"x\n",
        "ragged": b"x,y\n1,2\n3\n",
        "binary": b"x\n\xff\xfe\n",
    }
    for name, content in texts.items():
        (here / f"{name}.csv").write_bytes(content)
    write_idx(here / "truncated", (60, 28, 28), missing_bytes=5)
    write_idx(here / "corrupt", (60, 28, 28))
    write_idx(here / "floats", (60, 28, 28), kind=13)


def write_runs(here: Path, finished: Path) -> None:
    """Write damaged copies of a finished run."""
    damaged = ("truncated_checkpoint", "list_checkpoint", "other_version", "incomplete_checkpoint", "damaged_config")
    damaged += ("edited_config",)
    for name in ("run", "killed", "damaged_summary", "damaged_trace", *damaged):
        shutil.copytree(finished, here / name)
        (here / name / "checkpoint.previous.pt").unlink()
    (here / "killed" / "summary.json").unlink()
    checkpoint = finished / "checkpoint.pt"
    content = torch.load(checkpoint, weights_only=True)
    (here / "truncated_checkpoint" / "checkpoint.pt").write_bytes(checkpoint.read_bytes()[:500])
    torch.save([1, 2], here / "list_checkpoint" / "checkpoint.pt")
    torch.save(content | {"version": 99}, here / "other_version" / "checkpoint.pt")
    del content["step"]
    incomplete = here / "incomplete_checkpoint" / "checkpoint.pt"
    torch.save(content, incomplete)
    stored = incomplete.read_bytes()
    incomplete.write_bytes(stored + MARK + digest(stored))
    config = (finished / "config.yaml").read_text()
    (here / "edited_config" / "config.yaml").write_text(config.replace("lr: 0.01", "lr: 0.5"))
    (here / "damaged_config" / "config.yaml").write_text("a: [1, 2\nb: }")
    (here / "damaged_summary" / "summary.json").write_text('{"schema": 1, ')
    (here / "damaged_trace" / "trace.csv").write_text("step,replicate\n1,x\n")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> Path:
    """A folder with everything that the cases name."""
    folder = tmp_path_factory.mktemp("malformed")
    write_configurations(folder / "conf")
    write_data(folder)
    write_runs(folder, finished_run)
    assert run_in(folder, *SMOKE, "optimizer.lr=-1", "hydra.run.dir=failed").code == 1
    shutil.copy(finished_run / "config.yaml", folder / "failed")
    return folder


def completed(folder: Path) -> dict[Path, str]:
    """The summaries below `folder` that claim a finished run."""
    texts = {path: path.read_text() for path in folder.rglob("summary.json")}
    return {path: text for path, text in texts.items() if '"completed"' in text}


def assert_refused(result: Result, words: tuple[str, ...]) -> None:
    """One line, on standard error, that names what is wrong; exit code 1."""
    assert result.err.count("\n") == 1, result.err
    assert result.err.startswith("error: ")
    assert [word for word in words if word not in result.err] == [], result.err
    assert "Traceback" not in result.err + result.out
    assert result.err.endswith((".\n", "?\n", ")\n")), result.err
    assert "  " not in result.err
    assert result.code == 1


def assert_nothing_finished(folder: Path) -> None:
    """Whatever was written says that it failed."""
    for path in folder.rglob("summary.json"):
        assert json.loads(path.read_text())["status"] == "failed"


@pytest.mark.parametrize(("arguments", "words"), COMMAND_LINES)
def test_command_line(arguments: tuple[str, ...], words: tuple[str, ...], here: Path, tmp_path: Path) -> None:
    finished, configurations = completed(here), {p: p.read_bytes() for p in here.rglob("config.yaml")}
    result = run_in(tmp_path, *(argument.replace("{here}", str(here)) for argument in arguments))
    assert_refused(result, words)
    assert completed(here) == finished
    assert {p: p.read_bytes() for p in here.rglob("config.yaml")} == configurations
    assert_nothing_finished(tmp_path)


@pytest.mark.parametrize(("arguments", "words"), VALUES)
def test_value(
    arguments: tuple[str, ...], words: tuple[str, ...], here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = next((i for i, argument in enumerate(arguments) if argument.startswith("dataset.")), len(arguments) - 1)
    wrong = [argument.replace("{here}", str(here)) for argument in arguments[cut:]]
    config = OmegaConf.merge(configuration(*arguments[:cut]), OmegaConf.from_dotlist(wrong))
    assert isinstance(config, DictConfig)
    run_job(Job(config, tmp_path, wrong, []))
    out, err = capsys.readouterr()
    assert_refused(Result(len(failures), out, err), words)
    assert_nothing_finished(tmp_path)


def test_there_are_enough_cases() -> None:
    """And none hides another by having its name."""
    cases = [*COMMAND_LINES, *VALUES]
    assert len(cases) >= 45
    assert len({case.id for case in cases}) == len(cases)


def test_what_the_cases_start_from_is_right(cli: CommandLine, here: Path) -> None:
    """Negative control: without the mistake, the same command lines run."""
    for arguments in (SMOKE, (*SMOKE, "dataset=csv", f"dataset.path={here}/text.csv", "dataset.column=height")):
        assert cli(*arguments).code == 0
    assert cli("task=plot", f"run={here}/run").code == 0


@pytest.mark.parametrize(
    "result",
    [
        Result(0, "", "error: seed=-1.\n"),
        Result(1, "", "error: seed=-1.\nerror: seed=-1.\n"),
        Result(1, "", "Traceback (most recent call last): seed=-1\n"),
        Result(1, "", "error: something is wrong.\n"),
        Result(1, "error: seed=-1.\n", ""),
    ],
    ids=["exit code", "two lines", "traceback", "no name", "standard output"],
)
def test_a_bad_refusal_is_caught(result: Result) -> None:
    with pytest.raises(AssertionError):
        assert_refused(result, ("seed=-1",))
