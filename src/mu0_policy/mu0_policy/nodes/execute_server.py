"""Serve the action mu0/execute: one task at a time, with feedback, cancel and a named end."""

import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup

from mu0_msgs.action import ExecuteInstruction
from mu0_policy.core import End
from mu0_policy.task import Task

_FEEDBACK_PERIOD_S = 0.2
_LEAVE_S = 2.0
_REPLY_S = 0.2


class ExecuteServer:
    """Turn goals into tasks; the node says what a task does.

    Args:
        node: The node that serves.
        begin: Begins a task for an instruction and a time-out in s (0 = the node's), or refuses
            with a sentence.
        feedback: Returns the feedback of a running task.
    """

    def __init__(
        self,
        node: Any,
        begin: Callable[[str, float], Task | str],
        feedback: Callable[[Task], ExecuteInstruction.Feedback],
    ) -> None:
        self._node, self._begin, self._feedback = node, begin, feedback
        self._idle = threading.Event()
        self._idle.set()
        self._server = ActionServer(
            node,
            ExecuteInstruction,
            "mu0/execute",
            self._execute,
            cancel_callback=lambda goal: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )

    def destroy(self) -> None:
        """Let goals that have ended leave, then serve no more."""
        if not self._idle.is_set():
            self._idle.wait(_LEAVE_S)
            time.sleep(_REPLY_S)  # rclpy sends the result after the callback has returned
        self._server.destroy()

    def _execute(self, goal: Any) -> ExecuteInstruction.Result:
        task = self._begin(goal.request.instruction.strip(), goal.request.timeout_s)
        if isinstance(task, str):
            goal.abort()
            return ExecuteInstruction.Result(end_reason=End.REFUSED.value, message=task)
        self._idle.clear()
        try:
            while not task.ended.wait(_FEEDBACK_PERIOD_S):
                goal.publish_feedback(self._feedback(task))
                if goal.is_cancel_requested:
                    task.finish(End.CANCELLED, "cancelled on request")
            return self._result(goal, task)
        finally:
            self._idle.set()

    def _result(self, goal: Any, task: Task) -> ExecuteInstruction.Result:
        assert task.end is not None
        if task.end is End.DONE:
            goal.succeed()
        elif goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        return ExecuteInstruction.Result(
            end_reason=task.end.value,
            message=task.message,
            duration_s=self._feedback(task).elapsed_s,
        )
