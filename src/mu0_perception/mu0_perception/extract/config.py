"""Own the configuration of TraceExtract: one part for each stage."""

from dataclasses import dataclass, field

from mu0_core.config import option, validate
from mu0_core.episode_writer import EpisodeOptions
from mu0_perception.extract.captions import CaptionConfig
from mu0_perception.extract.depth_pose import DepthPoseConfig
from mu0_perception.extract.entities import FinderConfig
from mu0_perception.extract.events import EventConfig
from mu0_perception.extract.frames import FrameConfig
from mu0_perception.extract.motion import MotionConfig
from mu0_perception.extract.rest import RestConfig
from mu0_perception.extract.rigid import RigidConfig
from mu0_perception.extract.robot_frames import RobotFrameConfig
from mu0_perception.extract.sources import SourceConfig
from mu0_perception.extract.tracks import TrackConfig

_ARC_STEP = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractConfig:
    """Configure all stages."""

    source: SourceConfig = field(default_factory=SourceConfig)
    frames: FrameConfig = field(default_factory=FrameConfig)
    place: DepthPoseConfig = field(default_factory=DepthPoseConfig)
    entities: FinderConfig = field(default_factory=FinderConfig)
    tracks: TrackConfig = field(default_factory=TrackConfig)
    robot: RobotFrameConfig = field(default_factory=RobotFrameConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    rest: RestConfig = field(default_factory=RestConfig)
    rigid: RigidConfig = field(default_factory=RigidConfig)
    events: EventConfig = field(default_factory=EventConfig)
    captions: CaptionConfig = field(default_factory=CaptionConfig)
    episode: EpisodeOptions = option(
        EpisodeOptions(arc_step=_ARC_STEP), description="How tracks become traces"
    )

    def __post_init__(self) -> None:
        validate(self)
