"""Play the scripted expert in a simulation without ROS, and watch it.

One demonstration is one seeded scene: reset, plan, play until all motion has ended, hold a while.
One that begins astray shows how a miss is mended: the tool is first brought beside the target,
which nobody watches.
"""

from collections.abc import Sequence

from mu0_sim.robot_control import Observer, RobotControl, run
from mu0_sim.scripted_expert import LiftPlan, plan_lift, plan_stray
from mu0_sim.simulation import Simulation

_HOLD_S = 0.5


def plan_demonstration(simulation: Simulation, seed: int) -> LiftPlan:
    """Reset the simulation to a seeded scene and plan its lift from home.

    Raises:
        ConfigError: The seed is negative.
        TrajectoryError: The object cannot be grasped, or a pose is out of reach.
    """
    simulation.reset(seed=seed)
    return plan_lift(simulation, seed=seed)


def go_astray(simulation: Simulation, seed: int) -> RobotControl:
    """Reset the simulation to a seeded scene and bring the tool beside the target.

    Returns:
        The controllers, for `play`.

    Raises:
        TrajectoryError: A pose is out of reach.
    """
    simulation.reset(seed=seed)
    control = RobotControl(simulation.robot, simulation.home_command())
    control.arm.accept(plan_stray(simulation, seed=seed), simulation.time_s)
    for tick in run(simulation, control):
        if tick.time_s > control.arm.end_s + _HOLD_S:
            return control
    raise AssertionError("the clockwork never ends")


def play(
    simulation: Simulation,
    plan: LiftPlan,
    observers: Sequence[Observer] = (),
    control: RobotControl | None = None,
) -> bool:
    """Play a plan to its end; without observers nothing is rendered.

    Args:
        simulation: The scene.
        plan: Made from where the robot is.
        observers: Watch.
        control: The controllers that brought it there; None at home.

    Returns:
        Whether the task is done at the end.
    """
    if control is None:
        control = RobotControl(simulation.robot, simulation.home_command())
    control.arm.accept(plan.arm, simulation.time_s)
    control.gripper.accept(plan.gripper, simulation.time_s)
    for observer in observers:
        observer.on_reset(simulation)
    for tick in run(simulation, control):
        if tick.time_s > control.arm.end_s + _HOLD_S:
            return simulation.success()
        for observer in observers if tick.joints else ():
            observer.on_joints(simulation)
        if tick.camera and observers:
            frame = simulation.render()
            for observer in observers:
                observer.on_camera(frame, simulation)
    raise AssertionError("the clockwork never ends")
