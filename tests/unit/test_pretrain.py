import pytest

from zsbir.base.errors import RunError
from zsbir.pretrain import PretrainConfig, Settings, pretrain


@pytest.mark.slow
def test_a_training_that_diverges_says_so_and_keeps_no_weights(tmp_path):
    config = PretrainConfig(photos_per_class=4, image_px=16, epochs=1, batch_images=80, lr=1e30, precision="fp32")
    with pytest.raises(RunError, match=r"the training diverged, its loss is (nan|inf): pass a lower --lr \(now 1e\+30\)"):
        pretrain(config, Settings(root=str(tmp_path)))
    assert not list(tmp_path.rglob("*.safetensors"))
