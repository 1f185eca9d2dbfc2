"""The model card that a run leaves: what it says of where the weights come from."""

from dataclasses import replace

from mu0_world_model.card import TrainingFacts, model_card
from mu0_world_model.statistics import Statistics
from mu0_world_model.training_config import Trained

STATISTICS = Statistics(delta_scale=(0.1, 0.1, 0.1), arc_step=0.01, history_len=8, future_len=32)


def card_of(config, **changes):
    facts = TrainingFacts(
        config=replace(config, **changes),
        episodes=1,
        skipped=0,
        samples=4,
        held_out=0,
        parameters=10,
        trained=10,
        step=4,
        seconds=1.0,
        device="1 x cpu",
        measured={},
    )
    return model_card(facts, STATISTICS)


def test_the_card_names_what_the_weights_started_from(config):
    assert "| Started from | nothing (preset tiny) |" in card_of(config)
    assert (
        "| Started from | HuggingFaceTB/SmolVLM2-2.2B-Instruct and facebook/dinov2-base "
        "(preset released) |"
    ) in card_of(config, preset="released")
    started = card_of(config, start_from="mine", new_words=True, new_statistics=True)
    assert "| Started from | mine, units measured anew, tokens for new words |" in started
    assert "| Started from | mine |" in card_of(config, start_from="mine")


def test_the_card_names_what_was_trained_and_on_which_frames(config):
    plain = card_of(config)
    assert "| Trained | what the configuration does not keep fixed |" in plain
    assert "| Frames | all |" in plain
    tuned = card_of(config, start_from="mine", trained=Trained.EXPERT, frame_stride=2)
    assert "| Trained | the expert alone |" in tuned and "| Frames | one of 2 |" in tuned
