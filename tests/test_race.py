"""The race: beliefs, decode settings, the gate, and what is recommended."""

from __future__ import annotations

import numpy as np
import pytest

from ptal_ray.policy import evidence
from ptal_ray.policy.belief import believe
from ptal_ray.policy.cells import GATE, RACE, SCREEN
from ptal_ray.policy.gate import ERROR_RATE, accepted, compare
from ptal_ray.policy.race import EVERY_OUTCOME, MOST_BELIEVED, Race, gate_cells

ARMS, SETTINGS, FOLDS, CELLS = 40, 6, 4, 40


class World:
    """Made-up scores: configurations, folds and seeds, decode settings, and noise.

    Args:
        seed: of all of it.
        spread, noise: standard deviations between configurations and of a cell.
        tuned: standard deviation of what decode settings gain.
        defaults: quantile of the defaults among the configurations.
    """

    def __init__(self, seed, spread, noise, tuned=0.02, defaults=0.5):
        rng = np.random.default_rng(seed)
        self.place = rng.random((ARMS, 5))
        slope = self.place @ rng.normal(size=5)
        smooth = (slope - slope.mean()) / slope.std()
        self.truth = 0.5 + spread * (0.7 * smooth + 0.7 * rng.normal(size=ARMS))
        if spread:
            self.truth[0] = np.quantile(self.truth[1:], defaults)
        self.gain = tuned * rng.normal(size=SETTINGS)
        self.gain[0] = 0.0
        self.cell = 0.03 * rng.normal(size=CELLS)
        self.noise = noise * rng.normal(size=(ARMS, CELLS))

    def scores(self, arm, cell):
        return self.truth[arm] + self.gain + self.cell[cell] + self.noise[arm, cell]

    def test(self, arm, setting):
        return self.truth[arm] + self.gain[setting]


def race_of(world, budget, **more):
    def propose(arm, believed):
        assert len(believed) == arm
        return world.place[arm] if arm < ARMS else None

    return Race(budget=budget, num_folds=FOLDS, seed=1, propose=propose, **more)


def raced(world, budget=24, **more):
    race = race_of(world, budget, **more)
    cells = []
    while (cell := race.next()) is not None:
        cells.append(cell)
        race.tell(cell, world.scores(cell.arm, cell.index))
    return race, cells


def test_the_gate_opens_by_chance_in_at_most_one_of_twenty_searches():
    """Every arm is the same configuration, and no decode setting gains anything."""
    opened = [
        raced(World(seed, 0.0, 0.05, tuned=0.0), 16)[0].verdict().verdict == "better"
        for seed in range(60)
    ]
    assert sum(opened) <= 7  # 3 are expected; 8 or more have a chance of 1 %


@pytest.mark.parametrize("noise", [0.02, 0.06])
def test_what_is_recommended_is_never_far_below_the_defaults(noise):
    lost = []
    for seed in range(20):
        world = World(seed, 0.04, noise)
        found = raced(world)[0].verdict()
        lost.append(world.test(found.arm, found.setting) - world.test(0, 0))
    assert np.mean(np.array(lost) < -0.005) <= 0.05
    assert np.mean(lost) > 0


def test_bad_defaults_are_left_and_good_ones_kept():
    for seed in range(5):
        bad = World(seed, 0.1, 0.02, defaults=0.2)
        found = raced(bad)[0].verdict()
        assert found.verdict == "better" and found.arm
        assert bad.test(found.arm, found.setting) > bad.test(0, 0) + 0.05
        best = World(seed, 0.05, 0.01, tuned=0.0, defaults=1.0)
        best.truth[0] += 0.1
        found = raced(best)[0].verdict()
        assert (found.arm, found.setting) == (0, 0)
        assert found.verdict == "defaults"


def test_screening_lasts_longer_where_the_defaults_are_far_behind():
    for seed in range(5):
        far, fair = (World(seed, 0.1, 0.01, defaults=quantile) for quantile in (0.0, 1.0))
        screened = [len(raced(world)[0].arms) for world in (far, fair)]
        assert screened == [24 - 2 * gate_cells(24) - 2, 12]


def test_bad_defaults_take_no_cells_from_the_race_of_better_arms():
    def defaults_raced(quantile):
        races = [raced(World(seed, 0.1, 0.01, defaults=quantile))[1] for seed in range(5)]
        return sum(any(c.arm == 0 and c.stage == RACE for c in cells) for cells in races)

    assert defaults_raced(0.0) <= 1  # of five, where the lead is below three standard deviations
    assert defaults_raced(1.0) == 5


def test_decoding_alone_can_be_what_is_better():
    world = World(3, 0.0, 0.01)
    world.truth[1:] -= 0.2
    world.gain = np.array([0, 0.02, 0.1, 0.03, 0.0, -0.1])
    found = raced(world)[0].verdict()
    assert (found.verdict, found.arm, found.setting) == ("better", 0, 2)
    assert found.difference.mean == pytest.approx(0.1)


def test_the_budget_is_spent_and_not_more():
    for budget in (1, 2, 5, 12, 24, 60):
        race, cells = raced(World(0, 0.05, 0.03), budget)
        assert len(cells) <= max(budget, 2 + 2 * race.gate_cells)
        assert (cells[0].arm, cells[0].stage) == (0, SCREEN)
        if budget >= 12:
            assert len(cells) >= 0.8 * budget
            stages = [c.stage for c in cells]
            assert stages == sorted(stages, key=[SCREEN, RACE, GATE].index)


def test_the_gate_meets_on_cells_that_nobody_has_seen():
    race, cells = raced(World(2, 0.08, 0.02))
    gate = [c for c in cells if c.stage == GATE]
    finalist = race.verdict().finalist
    assert {c.arm for c in gate} == {0, finalist}
    own = {a: {c.index for c in gate if c.arm == a} for a in (0, finalist)}
    assert own[0] == own[finalist]
    before = {c.index for c in cells if c.stage != GATE and c.arm in own}
    assert not own[0] & before


def test_cells_are_the_same_for_every_arm_and_none_comes_twice():
    _, cells = raced(World(4, 0.05, 0.05), 40)
    assert len({(c.arm, c.index) for c in cells}) == len(cells)
    for arm in {c.arm for c in cells}:
        own = sorted(c.index for c in cells if c.arm == arm and c.stage != GATE)
        assert own == list(range(len(own)))
        defaults = sum(c.arm == 0 and c.stage != GATE for c in cells)
        assert len(own) <= defaults + 1


def test_several_at_a_time_end_too():
    world = World(5, 0.05, 0.03)
    race, running, done = race_of(world, 24), [], 0
    while True:
        while len(running) < 8 and (cell := race.next()) is not None:
            running.append(cell)
        if not running:
            assert not race.waiting
            break
        cell = running.pop(0)
        done += 1
        race.tell(cell, world.scores(cell.arm, cell.index))
    assert 18 <= done <= 26
    assert race.verdict().difference.cells


def test_time_that_is_up_ends_the_race_wherever_it_is():
    world = World(6, 0.05, 0.03)
    for when in range(1, 24, 4):
        race, count = race_of(world, 24), 0
        while (cell := race.next()) is not None:
            race.tell(cell, world.scores(cell.arm, cell.index))
            count += 1
            race.time_share = count / when
        assert count <= when + 1
        found = race.verdict()
        assert found.verdict in ("better", "tie", "defaults")
        # What was not compared is not said to be worse.
        assert found.verdict != "defaults" or not found.finalist


def test_an_arm_that_fails_is_out_of_the_race():
    world = World(7, 0.05, 0.03)
    race = race_of(world, 24)
    failed = set()
    while (cell := race.next()) is not None:
        assert cell.arm not in failed
        if cell.arm % 3 == 1 and cell.stage == SCREEN:
            failed.add(cell.arm)
            race.drop(cell, 0.2)
        else:
            race.tell(cell, world.scores(cell.arm, cell.index))
    assert failed
    assert len(race.arms) > 12  # what they did not use trained others
    assert race.verdict().finalist not in failed


@pytest.mark.parametrize("run", [0.02, 0.05, 0.08, 0.1])
def test_a_race_that_time_ends_leaves_time_for_a_gate(run):
    """Runs that take this fraction of the time each, one after the other."""
    rng = np.random.default_rng(3)
    race = Race(budget=100, num_folds=4, seed=0, propose=lambda arm, _: np.array([arm / 50]))
    while (cell := race.next()) is not None:
        race.tell(cell, np.array([0.5 + 0.1 * (cell.arm > 0) + 0.01 * rng.normal()]))
        race.time_share += run
    found = race.verdict()
    assert found.difference.cells >= 2
    assert race.time_share < 1 + run


def test_beliefs_shrink_what_one_cell_says_more_than_what_four_say():
    place = np.eye(8)
    rng = np.random.default_rng(0)
    truth = rng.normal(0.5, 0.05, 8)
    arm = [0, 0, 0, 0, *range(1, 8)]
    cell = [0, 1, 2, 3, *[0] * 7]
    score = [truth[a] + 0.05 * rng.normal() for a in arm]
    found = believe(score, arm, cell, cell, place)
    assert found.sd[0] < found.sd[1:].min()
    middle = np.mean(found.mean)
    raw = np.array([np.mean(score[:4]), *score[4:]])
    moved = np.abs(found.mean - middle) / np.abs(raw - raw.mean())
    assert (moved[1:] < 1).all()
    assert found.mean.max() < max(raw)


def test_beliefs_cover_the_differences_of_configurations():
    """About as often as they say, over many searches."""
    z = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        place = rng.random((12, 3))
        truth = rng.normal(0, 0.05, 12)
        arm = np.repeat(np.arange(12), 2)
        cell = np.tile([0, 1], 12)
        shift = rng.normal(0, 0.03, 2)
        score = 0.5 + truth[arm] + shift[cell] + 0.03 * rng.normal(size=24)
        found = believe(score.tolist(), arm.tolist(), cell.tolist(), cell.tolist(), place)
        centre = np.eye(12) - 1 / 12  # what all configurations share does not order them
        sd = np.sqrt(np.diag(centre @ found.covariance @ centre))
        z += (centre @ (found.mean - truth) / sd).tolist()
    assert 0.7 < np.std(z) < 1.3


def test_noise_leaves_out_what_all_share_in_a_cell():
    """However much more folds and seeds change all scores than one score differs."""
    for shift in (0.02, 0.1, 0.3):
        found = []
        for seed in range(10):
            rng = np.random.default_rng(seed)
            arm, cell = np.repeat(np.arange(8), 3), np.tile([0, 1, 2], 8)
            score = 0.5 + shift * rng.normal(size=3)[cell] + 0.02 * rng.normal(size=24)
            known = believe(score.tolist(), arm.tolist(), cell.tolist(), cell.tolist(), np.eye(8))
            found.append(known.noise)
        assert 0.015 < np.sqrt(np.mean(found)) < 0.03


def test_a_failure_does_not_make_the_rest_look_alike():
    place = np.eye(6)
    score = [0.50, 0.52, 0.54, 0.56, 0.58, 0.0]
    arm = list(range(6))
    found = believe(score, arm, [0] * 6, [0] * 6, place)
    assert np.argmax(found.mean) == 4
    assert found.noise < 0.05


def test_low_defaults_stay_low_where_most_arms_score_the_same():
    found = believe([0.2, 1, 1, 1], range(4), [0] * 4, [0] * 4, np.eye(4))
    assert found.mean[0] < found.mean[1:].min()


def test_differences_by_hand():
    same = compare([0.02, 0.02, 0.02, 0.02], 0.0)
    assert (same.mean, same.low, same.p) == (pytest.approx(0.02), pytest.approx(0.02), 0.0)
    wide = compare([0.02, 0.02, 0.02, 0.02], 0.01)
    assert wide.low < 0 < wide.high and wide.p > 0.05
    assert compare([], 0.01).p == 1.0
    one = compare([0.1], 0.0001)  # the noise of the search is all that is known
    assert one.cells == 1 and one.p < 0.05
    strict = compare([0.02, 0.03, 0.02], 0.0, fresh=False)
    assert strict.p > compare([0.02, 0.03, 0.02], 0.0).p
    assert compare([0.1], 0.0001, fresh=False).p == 1.0


@pytest.mark.parametrize("cells", [1, 2, 3, 8])
def test_the_interval_shows_what_the_gate_decides(cells):
    rng = np.random.default_rng(cells)
    for shift in np.linspace(0, 0.1, 21):
        found = compare((shift + 0.02 * rng.normal(size=cells)).tolist(), 0.02**2)
        assert accepted([found.p]) == [found.low > 0]
        alone = compare([shift] * 2 + [0.01], 0.0, fresh=False, level=ERROR_RATE)
        assert (alone.p <= ERROR_RATE) == (alone.low > 0)


def test_several_tests_share_the_error_rate():
    assert accepted([0.03, 0.2]) == [False, False]
    assert accepted([0.02, 0.025]) == [True, True]
    assert accepted([0.06, 0.02]) == [False, True]
    assert accepted([]) == []


def test_of_many_arms_the_best_and_the_defaults_are_believed():
    rng = np.random.default_rng(0)
    places = rng.random((300, 2))
    race = Race(
        budget=600, num_folds=FOLDS, seed=1,
        propose=lambda arm, believed: places[arm] if arm < 300 else None,
    )  # fmt: skip
    scores = rng.random(300)
    scores[0] = -1.0  # the worst
    while (cell := race.next()) is not None and cell.stage == SCREEN:
        race.tell(cell, scores[[cell.arm]])
    known, belief = race.belief()
    best = np.argsort(-scores[:300])[: MOST_BELIEVED - 1]
    assert known[0] == 0 and len(known) == MOST_BELIEVED
    assert len(set(known[1:]) & set(best.tolist())) > 0.95 * MOST_BELIEVED
    assert np.isfinite(belief.mean).all()


def test_a_belief_of_many_outcomes_is_made_anew_after_a_share_of_as_many_more(monkeypatch):
    made = []
    whole = evidence.believe
    monkeypatch.setattr(
        evidence, "believe", lambda score, *rest: made.append(len(score)) or whole(score, *rest)
    )
    race = Race(
        budget=400, num_folds=FOLDS, seed=1, propose=lambda arm, believed: np.array([arm / 200]),
    )  # fmt: skip
    for _ in range(100):
        cell = race.next()
        race.tell(cell, np.array([np.sin(cell.arm)]))
        race.belief()
    assert made[:40] == list(range(1, 41))
    assert len(made) < 85 and np.diff(made).max() == 100 // EVERY_OUTCOME
