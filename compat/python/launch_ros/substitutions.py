"""Substitutions that find packages and their executables."""

import os
import shutil

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch._missing import missing_attribute
from launch.launch_context import LaunchContext
from launch.some_substitutions_type import SomeSubstitutionsType
from launch.substitution import Substitution
from launch.substitutions import SubstitutionFailure
from launch.utilities import describe, normalize_to_list_of_substitutions, perform_any


class FindPackagePrefix(Substitution):
    """The install prefix of a package."""

    def __init__(self, package: SomeSubstitutionsType) -> None:
        self.package = normalize_to_list_of_substitutions(package)

    def perform(self, context: LaunchContext) -> str:
        return get_package_prefix(perform_any(context, self.package))

    def describe(self) -> str:
        return f"{type(self).__name__}(pkg={describe(self.package)})"


class FindPackageShare(FindPackagePrefix):
    """The share directory of a package."""

    def perform(self, context: LaunchContext) -> str:
        return get_package_share_directory(perform_any(context, self.package))


class ExecutableInPackage(FindPackagePrefix):
    """The path of an executable of a package, in `<prefix>/lib/<package>`."""

    def __init__(self, executable: SomeSubstitutionsType, package: SomeSubstitutionsType) -> None:
        super().__init__(package)
        self.executable = normalize_to_list_of_substitutions(executable)

    def perform(self, context: LaunchContext) -> str:
        prefix = super().perform(context)
        package = perform_any(context, self.package)
        executable = perform_any(context, self.executable)
        folder = os.path.join(prefix, "lib", package)
        if not os.path.exists(folder):
            raise SubstitutionFailure(
                f"package '{package}' found at '{prefix}', but libexec directory '{folder}' "
                "does not exist"
            )
        path = shutil.which(executable, path=folder)
        if path is None:
            raise SubstitutionFailure(
                f"executable '{executable}' not found on the libexec directory '{folder}' "
            )
        return path

    def describe(self) -> str:
        return f"ExecInPkg(pkg={describe(self.package)}, exec={describe(self.executable)})"


__getattr__ = missing_attribute(__name__)
