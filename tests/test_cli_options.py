"""Options of sampling, and progress on the terminal."""

from __future__ import annotations

import io
import sys
from dataclasses import fields

import pytest

from evfi import cli
from evfi.cli import options, progress
from evfi.cli.help_texts import described_attributes
from evfi.cli.interpolate import InterpolateCommand, SamplingOptions
from evfi.cli.options import make_sampling_options, parse, sampling_overrides
from evfi.errors import ConfigError
from evfi.pipeline.job_config import JobConfig
from evfi.sampling.config import SamplingConfig


class TestOptions:
    def test_every_setting_is_described(self):
        assert set(described_attributes(SamplingConfig)) == {field.name for field in fields(SamplingConfig)}
        assert set(described_attributes(JobConfig)) == {field.name for field in fields(JobConfig)}

    def test_every_sampling_setting_is_an_option(self):
        names = {field.name for field in fields(make_sampling_options())}
        renamed = {options._SHORT_NAMES.get(field.name, field.name) for field in fields(SamplingConfig)}
        on_by_default = {"two_sided", "refinement", "diffusion"}
        assert names == (renamed - on_by_default) | {f"no_{name}" for name in on_by_default}

    def test_nothing_given_overrides_nothing(self):
        assert sampling_overrides(SamplingOptions(), "exact") == {}

    def test_what_is_given(self):
        arguments = ["r", "--steps", "5", "--conditioning-fps", "9", "--fps", "30", "--no-refinement"]
        command = parse(InterpolateCommand, "interpolate", arguments)
        assert sampling_overrides(command.sampling, "exact") == {
            "num_inference_steps": 5,
            "fps": 9,
            "refinement": False,
        }
        assert command.frame_options.fps == 30

    @pytest.mark.parametrize(
        ("word", "name"),
        [
            ("--no-detail-restoration", "detail_restoration"),
            ("--no_texture_restoration", "texture_restoration"),
            ("--texture-restoration=True", "texture_restoration"),
        ],
    )
    def test_a_retired_option_says_what_replaces_it(self, word, name):
        message = rf"^sampling setting {name} was removed in version 0\.1\.0; leave it out: .*\(--no-refinement\)"
        with pytest.raises(ConfigError, match=message):
            parse(InterpolateCommand, "interpolate", ["r", "--steps", "5", word])

    def test_both_makers_of_frames_off(self):
        command = parse(InterpolateCommand, "interpolate", ["r", "--no-refinement", "--no-diffusion"])
        with pytest.raises(ConfigError, match="nothing would generate frames"):
            sampling_overrides(command.sampling, "exact")

    def test_options_without_effect(self):
        message = (
            "^--steps, --s-churn, --no-two-sided, --seed: no effect without the diffusion model, which preset warp"
        )
        options = SamplingOptions(steps=5, s_churn=0.0, no_two_sided=True)
        with pytest.raises(ConfigError, match=message):
            sampling_overrides(options, "warp", ["seed"])
        assert sampling_overrides(SamplingOptions(no_diffusion=True), "warp") == {"diffusion": False}

    def test_out_of_range(self):
        with pytest.raises(ConfigError, match=r"^--steps must be from 1 to 1000, got 0$"):
            sampling_overrides(SamplingOptions(steps=0), "exact")
        assert sampling_overrides(SamplingOptions(min_guidance_scale=3.5), "exact") == {"min_guidance_scale": 3.5}

    def test_a_solver_without_churn_goes_with_what_the_model_may_say(self):
        assert sampling_overrides(SamplingOptions(solver="dpmpp_2m"), "exact") == {"solver": "dpmpp_2m"}
        with pytest.raises(ConfigError, match=r"dpmpp_2m needs --s-churn 0, got 0\.5"):
            sampling_overrides(SamplingOptions(solver="dpmpp_2m", s_churn=0.5), "exact")


class TestProgress:
    def test_plain_lines_now_and_then(self, monkeypatch):
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        with progress.ProgressReport("windows", interval_s=0) as report:
            report(0, 4)
            report(1.5, 4)
            report(2, 4, "loss 1")
            report(4, 4)
        assert stream.getvalue().splitlines() == [
            "evfi: 1 of 4 windows",
            "evfi: 2 of 4 windows, 0:00:00 left, loss 1",
            "evfi: 4 of 4 windows, 0:00:00 left",
        ]

    def test_time_left_is_told_by_the_pace_since_work_was_first_seen(self, monkeypatch):
        clock = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: clock)
        time_left = progress.TimeLeft()
        assert time_left(5, 10) is None  # kept from an earlier run
        clock += 30  # loading
        assert time_left(5, 10) is None
        assert time_left(5.5, 10) is None
        clock += 4
        assert time_left(7.5, 10) == pytest.approx(5)
        clock += 6
        assert time_left(7.5, 10) == pytest.approx(12.5)
        assert time_left(10, 10) == 0

    def test_quiet_when_quick(self, capsys):
        with progress.ProgressReport("windows") as report:
            report(1, 1)
        assert capsys.readouterr().err == ""

    def test_bar_on_a_terminal(self, monkeypatch):
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        with progress.ProgressReport("windows") as report:
            report(1.5, 4)
        assert "1 of 4 windows" in stream.getvalue()

    def test_durations(self):
        assert progress._duration(3725.4) == "1:02:05"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["interpolate", "x", "-o", "a.mp4", "--max-insert", "0"], "--max-insert must be at least 1, got 0"),
        (["simulate", "x", "-o", "a", "--keep-every=0"], "--keep-every must be at least 1, got 0"),
        (["simulate", "x", "-o", "a", "--max_frames", "1"], "--max_frames must be at least 2, got 1"),
    ],
)
def test_settings_are_named_as_they_were_typed(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err == f"evfi: error: {message}\n"
