# One line of truth per module: its sources and the modules it may see (docs/ARCHITECTURE.md, "Who may include whom").
#
#   gatehouse_module(NAME SOURCES ... DEPS ... [PRIVATE_DEPS ...])   makes gatehouse_NAME and the alias gatehouse::NAME
#   gatehouse_program(NAME SOURCES ... DEPS ...)                     makes an executable NAME in build/<preset>/bin; installed
#   gatehouse_test(MODULE [DEPS ...] [LABELS ...] [TIMEOUT s] [COST s])
#                                                                    makes MODULE_test of every tests/MODULE/*_test.cc
#   gatehouse_bench(NAME SOURCES ... DEPS ...)                       makes NAME_bench (Google Benchmark)
#
# -ffp-contract=off everywhere: every fused multiply-add in the code is written as one, so that bits do not depend on
# which file a loop was compiled in. Designated initialisers leave defaulted members out on purpose, hence the one -Wno.

set(GATEHOUSE_WARNINGS -Wall -Wextra -Werror -Wno-missing-field-initializers -ffp-contract=off)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  list(APPEND GATEHOUSE_WARNINGS -Wthread-safety)
endif()
if(GATEHOUSE_SANITIZER)
  add_compile_options(-fsanitize=${GATEHOUSE_SANITIZER} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${GATEHOUSE_SANITIZER})
endif()

if(GATEHOUSE_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

function(gatehouse_target_defaults target)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
  target_compile_options(${target} PRIVATE ${GATEHOUSE_WARNINGS})
endfunction()

function(gatehouse_module name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(gatehouse_${name} STATIC ${ARG_SOURCES})
  add_library(gatehouse::${name} ALIAS gatehouse_${name})
  gatehouse_target_defaults(gatehouse_${name})
  target_link_libraries(gatehouse_${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
endfunction()

function(gatehouse_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  gatehouse_target_defaults(${name})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()

# COST is what a slow test takes under AddressSanitizer: ctest -j begins with the longest, in a fresh clone too, instead of
# ending with one of them alone.
function(gatehouse_test module)
  cmake_parse_arguments(ARG "" "TIMEOUT;COST" "DEPS;LABELS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/${module}/*_test.cc)
  if(NOT sources)
    return()
  endif()
  string(REPLACE "/" "_" target ${module}_test)
  add_executable(${target} ${sources})
  gatehouse_target_defaults(${target})
  target_link_libraries(${target} PRIVATE ${ARG_DEPS} GTest::gmock GTest::gtest GTest::gtest_main)
  target_compile_definitions(${target} PRIVATE GATEHOUSE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_test(NAME ${module} COMMAND ${target} --gtest_brief=1)
  set_tests_properties(${module} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
  if(ARG_COST)
    set_tests_properties(${module} PROPERTIES COST ${ARG_COST})
  endif()
endfunction()

function(gatehouse_bench name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name}_bench ${ARG_SOURCES})
  gatehouse_target_defaults(${name}_bench)
  target_link_libraries(${name}_bench PRIVATE ${ARG_DEPS} benchmark::benchmark)
  target_compile_definitions(${name}_bench PRIVATE GATEHOUSE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
endfunction()
