# Installs the SDK of BUILD_DIR under WORK_DIR and builds SOURCE_DIRS (a ;-list) against it; runs `consumer`.
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "${command}: exit status ${status}\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE "${WORK_DIR}")
set(prefix "${WORK_DIR}/prefix")
run(${CMAKE_COMMAND} --install "${BUILD_DIR}" --prefix "${prefix}" --component sdk)

# Nothing installed may need a generated protobuf or gRPC header.
file(GLOB_RECURSE headers "${prefix}/include/*.h")
if(NOT headers)
  message(FATAL_ERROR "no header was installed under ${prefix}/include")
endif()
foreach(header IN LISTS headers)
  file(READ "${header}" text)
  if(text MATCHES "#include [<\"](grpc|grpcpp|google|flux/v1|proto|client|worker|engine|store)/")
    message(FATAL_ERROR "${header} includes ${CMAKE_MATCH_0}: installed headers stand alone")
  endif()
endforeach()

foreach(source IN LISTS SOURCE_DIRS)
  get_filename_component(name "${source}" NAME)
  run(${CMAKE_COMMAND} -S "${source}" -B "${WORK_DIR}/${name}" -G "${GENERATOR}"
      "-DCMAKE_PREFIX_PATH=${prefix}" "-DCMAKE_BUILD_TYPE=${BUILD_TYPE}"
      "-DCMAKE_CXX_COMPILER=${CXX_COMPILER}" "-DCMAKE_CXX_COMPILER_LAUNCHER=${CXX_LAUNCHER}"
      "-DCMAKE_CXX_FLAGS=${CXX_FLAGS}")
  run(${CMAKE_COMMAND} --build "${WORK_DIR}/${name}")
endforeach()
run("${WORK_DIR}/install/consumer")
