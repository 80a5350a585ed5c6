"""The one mesh of inference."""

import jax
import numpy as np

from magiccolor_jax.parallel.mesh import DATA, by_case, data_mesh, replicated


def test_all_devices_lie_along_data():
    mesh = data_mesh()
    assert mesh.axis_names == (DATA,)
    assert list(mesh.devices.flat) == jax.local_devices()


def test_given_devices_are_taken():
    assert data_mesh(jax.devices()[:1]).size == 1


def test_parameters_are_copied_and_cases_dealt_out():
    mesh = data_mesh()
    assert replicated(mesh).is_fully_replicated
    dealt = jax.device_put(np.zeros((4 * mesh.size, 3)), by_case(mesh))
    assert dealt.addressable_shards[0].data.shape == (4, 3)
