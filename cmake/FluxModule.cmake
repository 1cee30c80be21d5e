# How a module is built: warnings, sanitizers, and one function a kind of target.
set(FLUX_SANITIZE "" CACHE STRING "Sanitizers: empty, \"address,undefined\" or \"thread\"")

add_library(flux_options INTERFACE)
target_compile_options(flux_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wunused-result
  -Werror=unused-result -Werror=return-type
  # g++ 12 sees overlaps in std::string's own operator+ and replace at -O2 and above (GCC bug 105651).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
option(FLUX_WERROR "Warnings are errors" ON)
if(FLUX_WERROR)
  target_compile_options(flux_options INTERFACE -Werror)
endif()
if(FLUX_SANITIZE)
  target_compile_options(flux_options INTERFACE -fsanitize=${FLUX_SANITIZE} -fno-omit-frame-pointer -O1 -g1)
  target_link_options(flux_options INTERFACE -fsanitize=${FLUX_SANITIZE})
endif()
# For the tests' own code, after flux_options: with every check and optimised it takes four times as long to compile,
# more than all else together. What they test keeps both.
add_library(flux_test_options INTERFACE)
if(FLUX_SANITIZE)
  target_compile_options(flux_test_options INTERFACE -O0)
endif()
if(FLUX_SANITIZE MATCHES "undefined")
  target_compile_options(flux_test_options INTERFACE -fno-sanitize=null,alignment,vptr)
endif()
if(FLUX_SANITIZE STREQUAL "thread")
  # By this macro protobuf 3.21 gives its maps one more member, which Debian's library does not know of.
  add_compile_options(-U__SANITIZE_THREAD__)
  # It must come before all other libraries of a program (cmake/tsan_locks.cc), so it is made here and is no target.
  set(tsan_locks "${CMAKE_BINARY_DIR}/libflux_tsan_locks.so")
  execute_process(
    COMMAND ${CMAKE_CXX_COMPILER} -std=c++20 -O1 -shared -fPIC -o ${tsan_locks} ${CMAKE_CURRENT_LIST_DIR}/tsan_locks.cc
    COMMAND_ERROR_IS_FATAL ANY)
  add_link_options(-Wl,--no-as-needed ${tsan_locks} -Wl,-rpath,${CMAKE_BINARY_DIR})
endif()

find_program(FLUX_CCACHE ccache)
if(FLUX_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${FLUX_CCACHE}")
endif()
find_program(FLUX_MOLD mold)
if(FLUX_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# flux_module(store_rocks ALIAS store SOURCES a.cc b.cc PUBLIC deps… PRIVATE deps…)
# A static library flux_<name> (alias flux::<name>), included as "<folder>/<file>.h" from the top of the tree.
function(flux_module name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(flux_${name} STATIC ${ARG_SOURCES})
  add_library(flux::${name} ALIAS flux_${name})
  target_include_directories(flux_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
  target_link_libraries(flux_${name} PUBLIC ${ARG_PUBLIC}
                        PRIVATE $<BUILD_INTERFACE:flux_options> ${ARG_PRIVATE})
  set_target_properties(flux_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
endfunction()

# flux_test(core_decide LABEL unit SOURCES decide_test.cc DEPS flux::core)
function(flux_test name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "SOURCES;DEPS;ENVIRONMENT" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} flux_options flux_test_options GTest::gmock GTest::gtest_main)
  if(FLUX_SANITIZE)
    target_compile_definitions(${name} PRIVATE FLUX_SANITIZED)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABEL}" TIMEOUT ${ARG_TIMEOUT}
                       ENVIRONMENT "${ARG_ENVIRONMENT}")
endfunction()
