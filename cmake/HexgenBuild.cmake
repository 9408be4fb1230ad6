# Flags and helpers that every room shares.

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # Paths relative to the checkout, so that clones share what was compiled once.
  set(_launcher ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1
    ${CCACHE_PROGRAM})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${_launcher})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${_launcher})
endif()

# Only the kernels gain from -O3, and they ask for it; -O2 builds a quarter faster. Sanitizers and
# fuzzers need line numbers, not a debugger's view.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")

find_package(Threads REQUIRED)

add_library(hexgen_flags INTERFACE)
# -ffp-contract=off: a token is a pure function of its inputs, so the compiler may not fuse a
# multiply with an add where the source did not ask for it (docs/design.md, Numerics).
target_compile_options(hexgen_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -ffp-contract=off -fno-math-errno>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # False alarms of g++ 12 (GCC bugs 105651 and 105593): std::string's operator+, AVX-512 headers.
  target_compile_options(hexgen_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
if(HEXGEN_SANITIZE)
  set(_sanitize -fsanitize=${HEXGEN_SANITIZE} -fno-omit-frame-pointer)
  if(HEXGEN_SANITIZE MATCHES "undefined")
    list(APPEND _sanitize -fno-sanitize-recover=undefined)
  endif()
  target_compile_options(hexgen_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${_sanitize}>)
  target_link_options(hexgen_flags INTERFACE ${_sanitize})
endif()

# hexgen_room(NAME DEPENDS rooms... LIBRARIES targets...): the room's static library
# `hexgen::NAME`, made of every .cpp below the room's folder. Its link interface is the rule of
# which room may know which; tests/rooms_test.py checks the includes against it.
function(hexgen_room name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;LIBRARIES;PRIVATE_LIBRARIES" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/compute/cuda/") # hexgen::gpu, see compute/CMakeLists.txt
  add_library(hexgen_${name} STATIC ${sources})
  add_library(hexgen::${name} ALIAS hexgen_${name})
  target_include_directories(hexgen_${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(hexgen_${name} PUBLIC hexgen_flags Threads::Threads ${ARG_LIBRARIES})
  target_link_libraries(hexgen_${name} PRIVATE ${ARG_PRIVATE_LIBRARIES})
  foreach(room ${ARG_DEPENDS})
    target_link_libraries(hexgen_${name} PUBLIC hexgen::${room})
  endforeach()
endfunction()

# hexgen_test(NAME ROOMS rooms... LIBRARIES targets...): one test program of every *_test.cpp in
# the current folder, registered with CTest as `NAME`.
function(hexgen_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "ROOMS;LIBRARIES" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_test.cpp)
  if(NOT sources)
    return()
  endif()
  add_executable(test_${name} ${sources})
  target_link_libraries(test_${name} PRIVATE hexgen_catch ${ARG_LIBRARIES})
  foreach(room ${ARG_ROOMS})
    target_link_libraries(test_${name} PRIVATE hexgen::${room})
  endforeach()
  target_compile_definitions(test_${name} PRIVATE HEXGEN_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND test_${name})
  set_tests_properties(${name} PROPERTIES ENVIRONMENT
                       "LSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/lsan.supp:print_suppressions=0")
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 600)
    if(HEXGEN_SANITIZE) # several times as slow, and whole minutes of it are the goldens
      set(ARG_TIMEOUT 3600)
    endif()
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT})
endfunction()

# hexgen_fuzz(NAME SOURCE ROOMS...): a libFuzzer target, only with -DHEXGEN_FUZZ=ON and clang; as a
# test it runs for HEXGEN_FUZZ_SECONDS over the corpus in fuzz_corpus/NAME of the build folder.
set(HEXGEN_FUZZ_SECONDS 20 CACHE STRING "Seconds that each libFuzzer target runs as a test")
if(HEXGEN_FUZZ)
  add_custom_target(fuzz_targets)
endif()
function(hexgen_fuzz name source)
  if(NOT HEXGEN_FUZZ)
    return()
  endif()
  add_executable(fuzz_${name} ${source})
  add_dependencies(fuzz_targets fuzz_${name})
  target_compile_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  foreach(room ${ARGN})
    target_link_libraries(fuzz_${name} PRIVATE hexgen::${room})
  endforeach()
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz_corpus/${name})
  add_test(NAME fuzz_${name}
    COMMAND fuzz_${name} -max_total_time=${HEXGEN_FUZZ_SECONDS} -timeout=10 -rss_limit_mb=2048
            -artifact_prefix=${CMAKE_BINARY_DIR}/fuzz_${name}_ ${CMAKE_BINARY_DIR}/fuzz_corpus/${name})
  set_tests_properties(fuzz_${name} PROPERTIES FIXTURES_REQUIRED fuzz_seeds)
endfunction()

# CUDA is optional: HEXGEN_WITH_CUDA says whether the backend is built.
set(HEXGEN_WITH_CUDA OFF)
if(NOT HEXGEN_CUDA STREQUAL "OFF")
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(HEXGEN_NVCC nvcc PATHS /usr/local/cuda/bin)
    if(HEXGEN_NVCC)
      set(CMAKE_CUDA_COMPILER ${HEXGEN_NVCC})
    endif()
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    # 80 carries PTX too, which later architectures compile at start.
    set(CMAKE_CUDA_ARCHITECTURES "80;90a-real" CACHE STRING "GPU architectures to build for")
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    set(CMAKE_CUDA_STANDARD 17) # CMake 3.25 knows no later one for nvcc
    set(HEXGEN_WITH_CUDA ON)
  elseif(HEXGEN_CUDA STREQUAL "ON")
    message(FATAL_ERROR "HEXGEN_CUDA=ON, but nvcc was not found: put it on PATH or set CUDACXX")
  endif()
endif()
message(STATUS "Hexgen CUDA backend: ${HEXGEN_WITH_CUDA}")
