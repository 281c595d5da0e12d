# Writes OUTPUT, a header with the commit and preset of this build, and only if they have changed, so
# that a commit recompiles one file. Run at build time: cmake -D SOURCE_DIR=.. -D PRESET=.. -D OUTPUT=..
execute_process(COMMAND git describe --always --dirty --abbrev=12 --exclude=*
                WORKING_DIRECTORY ${SOURCE_DIR} OUTPUT_VARIABLE commit ERROR_QUIET
                OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT commit)
  set(commit unknown)  # an archive without git
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT [[
#pragma once

namespace gatehouse {
inline constexpr char kBuildCommit[] = "@commit@";
inline constexpr char kBuildPreset[] = "@PRESET@";
}  // namespace gatehouse
]] @ONLY)
