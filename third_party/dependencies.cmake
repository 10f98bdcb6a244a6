# How each dependency is found: the system package first; where the network allows, a pinned release
# by FetchContent with its hash. third_party/README.md says what each one is for.
include(FetchContent)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

# Highway >= 1.2: system package, else the source tree that third_party/get_highway.sh unpacks, else fetched.
set(LUTRA_HIGHWAY_SOURCE "${CMAKE_SOURCE_DIR}/.deps/highway-1.2.0" CACHE PATH "Highway source tree")
find_package(hwy 1.2 CONFIG QUIET)
if(hwy_FOUND)
  add_library(lutra_hwy ALIAS hwy::hwy)
else()
  set(HWY_ENABLE_CONTRIB OFF CACHE BOOL "" FORCE)
  set(HWY_ENABLE_EXAMPLES OFF CACHE BOOL "" FORCE)
  set(HWY_ENABLE_INSTALL OFF CACHE BOOL "" FORCE)
  set(HWY_ENABLE_TESTS OFF CACHE BOOL "" FORCE)
  set(HWY_FORCE_STATIC_LIBS ON CACHE BOOL "" FORCE)
  if(EXISTS "${LUTRA_HIGHWAY_SOURCE}/CMakeLists.txt")
    add_subdirectory("${LUTRA_HIGHWAY_SOURCE}" "${CMAKE_BINARY_DIR}/highway" EXCLUDE_FROM_ALL)
  else()
    FetchContent_Declare(highway
      URL https://github.com/google/highway/archive/refs/tags/1.2.0.tar.gz
      URL_HASH SHA256=7e0be78b8318e8bdbf6fa545d2ecb4c90f947df03f7aadc42c1967f019e63343)
    FetchContent_MakeAvailable(highway)
  endif()
  get_target_property(hwy_include hwy INTERFACE_INCLUDE_DIRECTORIES)
  set_target_properties(hwy PROPERTIES INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${hwy_include}")
  add_library(lutra_hwy ALIAS hwy)
endif()

find_package(TBB 2021.8 CONFIG REQUIRED)

find_package(nlohmann_json 3.11 CONFIG QUIET)
if(NOT nlohmann_json_FOUND)
  FetchContent_Declare(json
    URL https://github.com/nlohmann/json/releases/download/v3.11.3/json.tar.xz
    URL_HASH SHA256=d6c65aca6b1ed68e7a182f4757257b107ae403032760ed6ef121c9d55e81757d)
  FetchContent_MakeAvailable(json)
endif()

find_package(PkgConfig REQUIRED)
# libedit: line editing and history of `lutra chat`.
pkg_check_modules(EDIT REQUIRED IMPORTED_TARGET libedit)

# cpp-httplib: parses request heads and writes answers in server/. Its process_request, which we derive from, is protected and
# has other parameters from 0.15 on, so the version is bounded.
add_library(lutra_httplib INTERFACE)
pkg_check_modules(HTTPLIB IMPORTED_TARGET cpp-httplib>=0.11 cpp-httplib<0.15)
if(HTTPLIB_FOUND)
  target_link_libraries(lutra_httplib INTERFACE PkgConfig::HTTPLIB Threads::Threads)
else()
  # v0.11.4; the commit is its own hash.
  FetchContent_Declare(httplib GIT_REPOSITORY https://github.com/yhirose/cpp-httplib GIT_TAG 7992b148969fbf8093230b37a6a36c2f61135937)
  foreach(option COMPILE INSTALL USE_OPENSSL_IF_AVAILABLE USE_ZLIB_IF_AVAILABLE USE_BROTLI_IF_AVAILABLE)
    set(HTTPLIB_${option} OFF CACHE BOOL "" FORCE)
  endforeach()
  FetchContent_MakeAvailable(httplib)
  target_link_libraries(lutra_httplib INTERFACE httplib::httplib Threads::Threads)
endif()

if(LUTRA_BUILD_TESTS)
  # PCRE2 (8 bit, with Unicode properties): runs the published pre-tokenizer expressions, which our splitters must equal.
  pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
  find_package(doctest 2.4 CONFIG QUIET)
  if(NOT doctest_FOUND)
    FetchContent_Declare(doctest
      URL https://github.com/doctest/doctest/archive/refs/tags/v2.4.11.tar.gz
      URL_HASH SHA256=632ed2c05a7f53fa961381497bf8069093f0d6628c5f26286161fbd32a560186)
    FetchContent_MakeAvailable(doctest)
  endif()
endif()

# CLI11: command-line options of the subcommands.
find_package(CLI11 2.1 CONFIG QUIET)
if(NOT CLI11_FOUND)
  FetchContent_Declare(cli11
    URL https://github.com/CLIUtils/CLI11/archive/refs/tags/v2.1.2.tar.gz
    URL_HASH SHA256=26291377e892ba0e5b4972cdfd4a2ab3bf53af8dac1f4ea8fe0d1376b625c8cb)
  FetchContent_MakeAvailable(cli11)
endif()
