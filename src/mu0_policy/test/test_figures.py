from mu0_policy.chunk import HandOver
from mu0_policy.figures import Figures

MADE = HandOver(consumed_s=0.01, late_s=-0.1, position_jump=0.0, velocity_jump=0.002)


def test_commands_and_latencies_are_summed_up():
    figures = Figures()
    assert "command_latency_p50_ms" not in figures.shown()
    figures.add_command(MADE, [])
    figures.add_command(MADE, ["j1: velocity"])
    figures.add_command(None, [])
    for latency_s in (0.1, 0.2, 0.3):
        figures.add_latency(latency_s)
    shown = figures.shown()
    assert shown["chunks_sent"] == 2 and shown["chunks_late"] == 1
    assert shown["limit_violations"] == 1
    assert shown["handover_velocity_jump"] == "2.00e-03"
    assert shown["command_latency_p50_ms"] == "200.0"
