"""The same file gives the same bytes, whatever the hash seed; and reading never loads JAX."""

CODE = """
import hashlib, sys
from jaxsnn.nir import build, read, write
from jaxsnn.nir.model.description import as_json, as_text

for path in {paths!r}:
    graph = read(path)
    print(hashlib.sha256((as_json(graph) + as_text(graph) + repr(graph.order())).encode()).hexdigest())
    write({out!r}, graph, force=True)
    print(hashlib.sha256(open({out!r}, "rb").read()).hexdigest())
write({out!r}, build.sequential(build.input(3), build.linear(4), build.lif(tau="1ms"), seed=0), force=True)
print(hashlib.sha256(open({out!r}, "rb").read()).hexdigest())
assert "jax" not in sys.modules
"""

NAMES = (
    "snntorch_a_twoheads",
    "snntorch_c_rsynaptic_all",
    "spyx_c_rcubalif",
    "norse_v_lif_cell",
    "spyx_v_conv_hwc",
)


def test_hash_seeds_change_nothing(zoo, tmp_path, run_python):
    paths = [str(zoo[name]) for name in NAMES if name in zoo]
    assert len(paths) == 4
    code = CODE.format(paths=paths, out=str(tmp_path / "out.nir"))
    outputs = [run_python(code, PYTHONHASHSEED=seed).stdout for seed in ("0", "1")]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 9
