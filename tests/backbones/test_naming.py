"""Names: each framework's arrays become the layers in order, and other networks are refused by what they hold."""
import numpy as np
import pytest

from sources import NORM, keras_arrays, paddle_arrays, random_network, timm_arrays
from yolo3.backbones.naming import recognise

FORMS = {'timm': timm_arrays, 'Keras': keras_arrays, 'Paddle': paddle_arrays}
NETWORK = random_network()


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_every_array_finds_its_place(form, prefix):
    arrays = {prefix + name: array for name, array in reversed(list(FORMS[form](NETWORK).items()))}
    source = recognise(dict(arrays, **{prefix + 'bn1.num_batches_tracked': np.array(7)}))
    assert source.framework == form
    for found, layer in zip(source.layers, NETWORK[0]):
        np.testing.assert_array_equal(found.weight, layer['weight'])
        for key in NORM:
            np.testing.assert_array_equal(getattr(found, key), layer[key])
    for found, array in zip(source.classifier, NETWORK[1]):
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize('form, last', [('timm', 'classifier'), ('Keras', 'conv_preds'), ('Paddle', 'out')])
def test_without_the_last_layer(form, last):
    arrays = {name: array for name, array in FORMS[form](NETWORK).items() if not name.startswith(last)}
    assert recognise(arrays).classifier is None


@pytest.mark.parametrize('form, change, said', [
    ('timm', lambda arrays: arrays.update({'conv_head.weight': np.zeros(1)}), r'it has conv_head\.weight too'),  # 100h
    ('timm', lambda arrays: arrays.pop('blocks.3.4.conv_dw.weight'), r"timm's: it has no blocks\.3\.4\.conv_dw"),
    ('Keras', lambda arrays: arrays.pop('conv_dw_3_bn/moving_mean'), r"it has no conv_dw_3_bn/moving_mean"),
    ('Paddle', lambda arrays: arrays.pop('out.bias'), r"Paddle's: it has no out\.bias"),
    ('timm', lambda arrays: arrays.pop('conv_stem.weight'), r'of timm, Keras, Paddle: it holds bn1\.weight'),
    ('timm', lambda arrays: arrays.clear(), 'it holds no arrays')])
def test_other_networks_are_refused(form, change, said):
    arrays = FORMS[form](NETWORK)
    change(arrays)
    with pytest.raises(ValueError, match=said):
        recognise(arrays)
