"""The simulated detector: levels, noise, non-linearity, defects."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import niri
from pipeline.simulate import Shot, detector


def test_constants_agree_with_those_the_pipeline_reduces_with() -> None:
    assert detector.GAIN == niri.GAIN
    assert detector.WELL == niri.WELL_ELECTRONS
    assert {k: tuple(v) for k, v in detector.NONLINEARITY.items()} == {
        k: tuple(v) for k, v in niri.LINEARITY.items()
    }
    assert detector.READ_NOISE.items() <= niri.READ_NOISE_ELECTRONS.items()
    assert {reads: mode for mode, reads in detector.READS.items()} == niri.READ_MODES


def test_nonlinearity_is_the_exact_inverse_of_the_published_correction() -> None:
    curve = detector.NONLINEARITY["High Background", 1024, "Shallow"]
    # Published example: 61500 e- measured are 63148.332 e-.
    assert float(curve.apply(61_500.0)) == pytest.approx(63_148.332, abs=0.01)
    for curve in detector.NONLINEARITY.values():
        measured = np.linspace(0, 2.02e5, 5000, dtype=np.float32)
        np.testing.assert_allclose(curve.invert(curve.apply(measured)), measured, rtol=3e-7, atol=0.02)


@pytest.mark.parametrize(
    ("mode", "seconds", "coadds", "rate"),
    [
        ("Medium Background", 20.002, 1, 1500.0),
        ("High Background", 2.0, 5, 300.0),
        ("Low Background", 60.0, 2, 0.25),
    ],
)
def test_level_and_noise(mode: str, seconds: float, coadds: int, rate: float) -> None:
    shot = (
        Shot(read_mode=mode, exposure=seconds, coadds=coadds).with_dark(0.25, pedestal=130.0).with_sky(rate)
    )
    raw = shot.render(1)
    electrons = raw.adu * 12.3
    curve = detector.NONLINEARITY.get((mode, 256, "Shallow"), detector.LINEAR)
    light = (rate + 0.25) * (seconds + curve.time_delta)
    collected = light + 130 * (seconds + curve.time_delta) / seconds
    measured = float(curve.invert(np.float32(collected))) * coadds
    assert float(electrons.mean()) == pytest.approx(measured, abs=float(4 * electrons.std() / 256 + 0.1))
    slope = 1 + collected * (2 * curve.gamma + 3 * curve.eta * collected)
    noise = np.sqrt(light * coadds / slope**2 + detector.READ_NOISE[mode] ** 2 * coadds)
    assert float(electrons.std()) == pytest.approx(noise, rel=0.01)
    assert np.array_equal(raw.adu, np.rint(raw.adu))
    np.testing.assert_allclose(raw.electrons, ((rate + 0.25) * seconds + 130) * coadds, rtol=1e-5)


def test_the_well_fills_and_a_burnt_out_star_has_a_hole() -> None:
    raw = Shot(shape=(64, 64)).with_sources([(32.0, 32.0, 4e6)]).render(2)
    full = 200_000 / 12.3
    assert raw.adu.max() == pytest.approx(1.01 * full, rel=0.003)
    assert raw.adu[32, 32] < 0.1 * full
    assert raw.saturated[32, 32]
    assert (raw.adu[raw.saturated] >= niri_saturation())[1:].mean() > 0.5
    one = Shot(shape=(64, 64), well="Deep").with_sources([(32.0, 32.0, 4e5)]).render(2)
    assert 16_260 < one.adu.max() < 23_100


def niri_saturation() -> int:
    return int(200_000 / 12.3)


def test_defects_are_clear_cases() -> None:
    array = detector.make_detector(np.random.default_rng(5), 256)
    good = ~array.hot & ~array.dead
    assert array.response[array.dead].max() < 0.31
    assert 0.85 < array.response[good].min() <= array.response[good].max() < 1.2
    assert float(np.median(array.response[good])) == pytest.approx(1, abs=2e-3)
    assert array.dark_rate[good].max() < 20
    hot = array.dark_rate[array.hot]
    assert not ((hot > 1001) & (hot < 1449)).any()
    assert not (array.static_bpm & good).any()
    assert 0.4 < array.static_bpm.sum() / (~good).sum() < 0.9
