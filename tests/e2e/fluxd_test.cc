// fluxd itself: how it starts, what it refuses, how it ends.
#include <signal.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "flux/v1/schedule.grpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "store/data_dir.h"
#include "store/synced_marks.h"
#include "tests/e2e/processes.h"
#include "tests/e2e/workflows.h"

namespace flux::e2e {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

// Exit codes that `fluxd --help` promises.
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitStore = 3;

class FluxdProcess : public EndToEnd {
 protected:
  // Starts a chain an id and waits for the ends; what is acknowledged and recorded here must be
  // there whatever becomes of the process.
  void Fill(int count) {
    ASSERT_TRUE(api().Put(DefinitionOf(kChain)).ok());
    StartWorker({.id = "filler", .slots = 8});
    for (int i = 0; i < count; ++i) {
      auto started = api().Start(StartOf(kChain, absl::StrCat("fill", i), int64_t{i}));
      ASSERT_TRUE(started.ok()) << started.status();
    }
    for (int i = 0; i < count; ++i) {
      auto result = api().AwaitClosed(Ref(absl::StrCat("fill", i)));
      ASSERT_TRUE(result.ok()) << result.status();
    }
    workers_.clear();
  }

  void ExpectFilled(int count) {
    auto found = api().Count();
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(*found, static_cast<uint64_t>(count));
    for (int i = 0; i < count; ++i) {
      const v1::ExecutionRef run = Ref(absl::StrCat("fill", i));
      auto result = api().Result(run);
      ASSERT_TRUE(result.ok()) << result.status();
      EXPECT_EQ(result->status(), v1::EXECUTION_STATUS_COMPLETED);
      EXPECT_EQ(result->result().data(), absl::StrCat(i + 4));
      auto verified = api().Verify(run);
      ASSERT_TRUE(verified.ok()) << verified.status();
      EXPECT_TRUE(verified->equal()) << verified->difference();
    }
  }

  // Starts fluxd where it must fail; the exit code and what this start wrote.
  Finished StartAndFail(const Flags& flags = {}) {
    const size_t before = fluxd_.log().size();
    const absl::Status launched = fluxd_.Launch(flags);
    EXPECT_TRUE(launched.ok()) << launched;
    Finished finished;
    finished.exit_code = ExitCode(fluxd_.process().Wait());
    finished.log = fluxd_.log().substr(before);
    return finished;
  }

  std::string NewestWal() const {
    std::string newest;
    for (const auto& file : fs::directory_iterator(fluxd_.data() + "/db")) {
      if (file.path().extension() == ".log" && file.file_size() > 0) {
        newest = std::max(newest, file.path().string());
      }
    }
    return newest;
  }
};

// ---- starting and ending
// ---------------------------------------------------------------------------------------

TEST_F(FluxdProcess, PicksAPortAndWritesItDown) {
  const std::string port_file = directory_ / "port";
  auto process = Process::Start(
      {FLUX_E2E_FLUXD,
       {"--data", directory_ / "other", "--listen", "127.0.0.1:0", "--port-file", port_file},
       {},
       "",
       directory_ / "fluxd.log"});
  ASSERT_TRUE(process.ok()) << process.status();
  ASSERT_TRUE(Eventually([&] { return fs::exists(port_file); }));
  const std::string text = ReadFile(port_file);
  ASSERT_THAT(text, ::testing::EndsWith("\n"));
  Api other("127.0.0.1:" + text.substr(0, text.size() - 1));
  auto info = other.Info();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->data_directory(), directory_ / "other");
  EXPECT_EQ(ExitCode(process->Terminate()), 0);
}

TEST_F(FluxdProcess, SigtermAndSigintDrainAndExitWithZero) {
  ASSERT_TRUE(fs::exists(directory_.path()));
  SetFlags({{"session-grace", "10s"}});  // longer than any pause between a worker's tries
  for (int signal : {SIGTERM, SIGINT}) {
    SCOPED_TRACE(signal);
    StartFluxd();
    ASSERT_TRUE(api().Put(DefinitionOf(kGated)).ok());
    StartWorker({.id = "w"});
    const std::string id = absl::StrCat("open-at-", signal);
    ASSERT_TRUE(api().Start(StartOf(kGated, id, std::string(id))).ok());
    ledger_.Await({.event = "begin", .workflow_id = id});
    // With a task running, a worker connected and a client waiting, it still ends at once.
    grpc::ClientContext context;
    v1::GetResultRequest request;
    *request.mutable_execution() = Ref(id);
    request.set_wait_ms(60'000);
    v1::GetResultResponse response;
    grpc::Status waited;
    std::thread waiter([&] { waited = api().workflows().GetResult(&context, request, &response); });
    EXPECT_TRUE(Eventually([&] { return api().Info()->tasks_running() == 1; }));
    fluxd_.process().Signal(signal);
    EXPECT_EQ(ExitCode(fluxd_.process().Wait()), 0);
    waiter.join();
    EXPECT_THAT(fluxd_.log(), AllOf(HasSubstr("shutting down"), HasSubstr("stopped")));
    // The worker kept its task meanwhile.
    StartFluxd();
    ledger_.OpenGate(id);
    auto result = api().AwaitClosed(Ref(id));
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->result().data(), "\"w\"");
    EXPECT_THAT(ledger_.Find({.event = "begin", .workflow_id = id}), SizeIs(1));
    workers_.clear();
    KillFluxd();
  }
}

TEST_F(FluxdProcess, AStopUnderLoadLosesNothingAcknowledged) {
  StartFluxd();
  ASSERT_TRUE(api().Put(DefinitionOf(kChain)).ok());
  StartWorker({.id = "w"});
  std::atomic<int> acknowledged{0};
  std::atomic<bool> stop{false};
  std::thread starter([&] {
    for (int i = 0; !stop; ++i) {
      auto started =
          api().Start(StartOf(kChain, absl::StrCat("load", i), int64_t{i}), absl::Seconds(5));
      if (!started.ok()) break;
      acknowledged = i + 1;
    }
  });
  EXPECT_TRUE(Eventually([&] { return acknowledged > 20; }));
  EXPECT_EQ(ExitCode(fluxd_.process().Terminate()), 0);
  stop = true;
  starter.join();
  StartFluxd();
  for (int i = 0; i < acknowledged; ++i) {
    auto result = api().AwaitClosed(Ref(absl::StrCat("load", i)));
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->result().data(), absl::StrCat(i + 4));
  }
}

TEST_F(FluxdProcess, DevServesOnATemporaryDirectoryThatItRemoves) {
  const std::string port_file = directory_ / "port";
  const std::string temporary = directory_ / "tmp";
  fs::create_directory(temporary);
  auto process = Process::Start({FLUX_E2E_FLUXD,
                                 {"dev", "--listen", "127.0.0.1:0", "--port-file", port_file},
                                 {{"TMPDIR", temporary}},
                                 "",
                                 directory_ / "fluxd.log"});
  ASSERT_TRUE(process.ok()) << process.status();
  ASSERT_TRUE(Eventually([&] { return fs::exists(port_file); }));
  std::string port = ReadFile(port_file);
  port.pop_back();
  Api dev("127.0.0.1:" + port);
  ASSERT_TRUE(dev.Put(DefinitionOf(kChain)).ok());
  ASSERT_TRUE(dev.Start(StartOf(kChain, "dev", int64_t{1})).ok());
  EXPECT_EQ(std::distance(fs::directory_iterator(temporary), {}), 1);
  EXPECT_EQ(ExitCode(process->Terminate()), 0);
  EXPECT_EQ(std::distance(fs::directory_iterator(temporary), {}), 0);
}

TEST_F(FluxdProcess, HelpAndVersionGoToStdout) {
  const Finished help = RunToEnd(FLUX_E2E_FLUXD, {"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* text : {"--data", "--session-grace", "--config", "Exit codes", "dev"}) {
    EXPECT_THAT(help.output, HasSubstr(text));
  }
  const Finished version = RunToEnd(FLUX_E2E_FLUXD, {"--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.output, HasSubstr("0."));
}

// Under a soft limit that idle connections would use up, so that the store could not open its next
// file.
TEST_F(FluxdProcess, RaisesItsLimitOnOpenFiles) {
  constexpr int kConnections = 200;
  fluxd_.set_wrapper({"/bin/sh", "-c", "ulimit -Sn 128 && exec \"$@\"", "sh"});
  StartFluxd();
  std::vector<std::unique_ptr<Api>> clients;
  for (int i = 0; i < kConnections; ++i) {
    clients.push_back(std::make_unique<Api>(fluxd_.target()));
    auto info = clients.back()->Info();
    ASSERT_TRUE(info.ok()) << i << ": " << info.status();
  }
  EXPECT_THAT(fluxd_.log(), Not(HasSubstr("the limit on open files is 128")));
}

TEST_F(FluxdProcess, WarnsOfALimitOnOpenFilesThatIsTooLow) {
  fluxd_.set_wrapper({"/bin/sh", "-c", "ulimit -n 300 && exec \"$@\"", "sh"});
  StartFluxd();
  EXPECT_THAT(fluxd_.log(), AllOf(HasSubstr("the limit on open files is 300, but 20768"),
                                  HasSubstr("20000 workers"), HasSubstr("LimitNOFILE")));
}

// ---- services beside its own
// -----------------------------------------------------------------------------------

TEST_F(FluxdProcess, HealthAndReflectionAnswer) {
  StartFluxd();
  // grpc.health.v1.HealthCheckResponse{status: SERVING}, for the server as a whole.
  const Api::RawAnswer health = api().CallRaw("/grpc.health.v1.Health/Check", "");
  EXPECT_TRUE(health.status.ok()) << health.status.error_message();
  EXPECT_THAT(health.messages, ::testing::ElementsAre(std::string("\x08\x01")));
  // ServerReflectionRequest{list_services: ""}, in its wire form.
  const Api::RawAnswer services = api().CallRaw(
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", std::string("\x3a\x00", 2));
  EXPECT_TRUE(services.status.ok()) << services.status.error_message();
  ASSERT_THAT(services.messages, SizeIs(1));
  for (const char* name : {"flux.v1.WorkflowService", "flux.v1.WorkerService",
                           "flux.v1.AdminService", "grpc.health.v1.Health"}) {
    EXPECT_THAT(services.messages[0], HasSubstr(name));
  }
  // ServerReflectionRequest{file_containing_symbol: "flux.v1.WorkflowService"}.
  const std::string symbol = "flux.v1.WorkflowService";
  const Api::RawAnswer file =
      api().CallRaw("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                    std::string("\x22") + static_cast<char>(symbol.size()) + symbol);
  ASSERT_THAT(file.messages, SizeIs(::testing::Ge(1u)));
  EXPECT_THAT(file.messages[0], HasSubstr("StartWorkflow"));
}

// The messages of a log in JSON: each line an object of text alone, in UTF-8.
std::vector<std::string> MessagesOf(const std::string& log) {
  std::vector<std::string> messages;
  for (const auto line : absl::StrSplit(log, '\n', absl::SkipEmpty())) {
    const auto json = nlohmann::json::parse(line.begin(), line.end(), nullptr, false);
    EXPECT_TRUE(json.is_object()) << std::string(line);
    if (!json.is_object()) continue;
    for (const char* key : {"time", "level", "message"}) {
      EXPECT_TRUE(json.contains(key) && json[key].is_string()) << std::string(line);
    }
    messages.push_back(json.value("message", ""));
  }
  return messages;
}

TEST_F(FluxdProcess, JsonLogsAreOneObjectALine) {
  StartFluxd({{"log-format", "json"}, {"log-level", "debug"}});
  Fill(3);
  // ExecutionRef{workflow_id: "\xff"}, of which protobuf itself has something to say.
  const Api::RawAnswer malformed =
      api().CallRaw("/flux.v1.WorkflowService/DescribeExecution", "\x0a\x03\x12\x01\xff");
  EXPECT_FALSE(malformed.status.ok());
  EXPECT_EQ(ExitCode(fluxd_.process().Terminate()), 0);
  // A path that JSON has to escape, and one that is no text.
  const std::string odd = directory_ / "odd \"name\"\\\n\t\x01 here";
  StartFluxd({{"log-format", "json"}, {"data", odd}});
  EXPECT_EQ(ExitCode(fluxd_.process().Terminate()), 0);
  const std::string no_text = directory_ /
                              "Stra\xdf"
                              "e";
  StartFluxd({{"log-format", "json"}, {"data", no_text}});
  const auto info = api().Info();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->data_directory(), directory_ /
                                        "Stra\xef\xbf\xbd"
                                        "e");
  EXPECT_EQ(ExitCode(fluxd_.process().Terminate()), 0);
  EXPECT_TRUE(fs::exists(no_text + "/FORMAT"));

  const std::vector<std::string> messages = MessagesOf(fluxd_.log());
  EXPECT_GE(messages.size(), 9u);
  EXPECT_THAT(messages, Contains(HasSubstr("serves on " + fluxd_.target())));
  EXPECT_THAT(messages, Contains(HasSubstr("contains invalid UTF-8")));
  EXPECT_THAT(messages, Contains(HasSubstr("data in " + odd)));
  EXPECT_THAT(messages, Contains(HasSubstr("data in " + (directory_ / "Stra\xef\xbf\xbd"
                                                                      "e"))));
}

TEST_F(FluxdProcess, RefusalsAreLoggedAsAllElseIs) {
  StartFluxd();
  struct Case {
    std::vector<std::string> arguments;
    int exit_code;
    std::string message;
  };
  const std::vector<Case> cases = {
      {{"--data", fluxd_.data()}, kExitStore, fluxd_.data() + " is in use"},
      {{}, kExitUsage, "no data directory"},
      {{"dev", "--data", fluxd_.data()}, kExitUsage, "makes its own temporary directory"},
      {{"--data", directory_ / "other", "--listen", fluxd_.target(), "--reserve-bytes", "0",
        "--ballast-bytes", "0"},
       kExitFailed,
       "another process listens there"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.message);
    std::vector<std::string> arguments = c.arguments;
    arguments.insert(arguments.end(), {"--log-format", "json"});
    const Finished refused = RunToEnd(FLUX_E2E_FLUXD, arguments, {{"FLUX_LISTEN", "127.0.0.1:0"}});
    EXPECT_EQ(refused.exit_code, c.exit_code);
    const std::vector<std::string> messages = MessagesOf(refused.log);
    EXPECT_THAT(messages, Contains(HasSubstr(c.message)));
    EXPECT_THAT(refused.log, HasSubstr(R"("level":"error")"));
  }
}

// ---- settings
// --------------------------------------------------------------------------------------------------

TEST_F(FluxdProcess, AFlagWinsOverTheEnvironmentAndThatOverTheFile) {
  const std::string file = directory_ / "fluxd.yaml";
  WriteFile(file, "session-grace: 30s\nping-interval: 3s\npayload-bytes-max: 3MiB\n");
  fluxd_.set_flags({});
  struct Case {
    Flags flags;
    std::map<std::string, std::string> environment;
    int64_t grace_ms;
    int64_t ping_ms;
    uint64_t payload;
  };
  const std::vector<Case> cases = {
      {{}, {}, 10'000, 5'000, 4u << 20},
      {{{"config", file}}, {}, 30'000, 3'000, 3u << 20},
      {{}, {{"FLUX_CONFIG", file}}, 30'000, 3'000, 3u << 20},
      {{{"config", file}}, {{"FLUX_SESSION_GRACE", "20s"}}, 20'000, 3'000, 3u << 20},
      {{{"config", file}, {"session-grace", "11s"}},
       {{"FLUX_SESSION_GRACE", "20s"}, {"FLUX_PING_INTERVAL", "2s"}},
       11'000,
       2'000,
       3u << 20},
      {{{"session-grace", "11s"}}, {{"FLUX_PAYLOAD_BYTES_MAX", "64KiB"}}, 11'000, 5'000, 64u << 10},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    StartFluxd(cases[i].flags, cases[i].environment);
    RawWorker worker(api());
    worker.Hello(RawWorker::HelloOf("w", {"t"}));
    const v1::Welcome welcome = worker.AwaitWelcome();
    EXPECT_EQ(welcome.session_grace_ms(), cases[i].grace_ms);
    EXPECT_EQ(welcome.ping_interval_ms(), cases[i].ping_ms);
    EXPECT_EQ(welcome.payload_bytes_max(), cases[i].payload);
    worker.Break();
    KillFluxd();
  }
}

TEST_F(FluxdProcess, QueueLimitsComeFromTheFile) {
  const std::string file = directory_ / "fluxd.yaml";
  WriteFile(file, "queues:\n  default: {concurrency: 2}\n");
  StartFluxd({{"config", file}, {"session-grace", "10m"}, {"ping-interval", "1m"}});
  StartWorker({.id = "w", .slots = 8});
  ASSERT_TRUE(api().Put(DefinitionOf(kGated)).ok());
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(
        api().Start(StartOf(kGated, absl::StrCat("limited", i), absl::StrCat("gate", i))).ok());
  }
  EXPECT_TRUE(Eventually([&] { return ledger_.Find({.event = "begin"}).size() == 2; }));
  int limited = 0;
  for (int i = 0; i < 5; ++i) {
    auto step = api().DescribeStep(Ref(absl::StrCat("limited", i)), "wait");
    ASSERT_TRUE(step.ok()) << step.status();
    limited += step->reason().find("limited to 2 running") != std::string::npos ? 1 : 0;
  }
  EXPECT_EQ(limited, 3);
  for (int i = 0; i < 5; ++i) ledger_.OpenGate(absl::StrCat("gate", i));
  for (int i = 0; i < 5; ++i) {
    auto result = api().AwaitClosed(Ref(absl::StrCat("limited", i)));
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->status(), v1::EXECUTION_STATUS_COMPLETED);
  }
}

TEST_F(FluxdProcess, WrongSettingsAreRefusedByName) {
  const auto yaml = [&](const std::string& name, const std::string& text) {
    WriteFile(directory_ / name, text);
    return directory_ / name;
  };
  struct Case {
    const char* name;
    std::vector<std::string> arguments;
    std::map<std::string, std::string> environment;
    std::vector<std::string> words;  // all in the message
  };
  const std::vector<Case> cases = {
      {"no data directory", {}, {}, {"--data", "fluxd dev"}},
      {"unknown flag", {"--data", "x", "--date", "y"}, {}, {"--date"}},
      {"unknown command", {"serve"}, {}, {"serve"}},
      {"a flag without its value", {"--data"}, {}, {"--data"}},
      {"dev with a directory", {"dev", "--data", "x"}, {}, {"dev", "(--data)"}},
      {"dev with a directory of the environment",
       {"dev"},
       {{"FLUX_DATA", "x"}},
       {"dev", "(FLUX_DATA)"}},
      {"dev with a directory of the file",
       {"dev", "--config", yaml("dev.yaml", "data: x\n")},
       {},
       {"dev", "dev.yaml: data)"}},
      {"bad duration",
       {"--data", "x", "--session-grace", "ten"},
       {},
       {"--session-grace", "\"ten\"", "10s"}},
      {"duration out of range",
       {"--data", "x", "--session-grace", "1ms"},
       {},
       {"--session-grace", "1ms", "10ms"}},
      {"negative duration",
       {"--data", "x", "--session-grace", "-1s"},
       {},
       {"--session-grace", "-1s"}},
      {"bad size",
       {"--data", "x", "--payload-bytes-max", "4MB"},
       {},
       {"--payload-bytes-max", "\"4MB\"", "4MiB"}},
      {"size out of range",
       {"--data", "x", "--payload-bytes-max", "64GiB"},
       {},
       {"--payload-bytes-max", "64GiB"}},
      {"shards", {"--data", "x", "--shards", "6"}, {}, {"--shards", "\"6\"", "power of two"}},
      {"bad level",
       {"--data", "x", "--log-level", "loud"},
       {},
       {"--log-level", "\"loud\"", "debug", "error"}},
      {"bad number",
       {"--data", "x", "--ready-per-queue-max", "0"},
       {},
       {"--ready-per-queue-max", "\"0\""}},
      {"environment",
       {"--data", "x"},
       {{"FLUX_PING_INTERVAL", "soon"}},
       {"FLUX_PING_INTERVAL", "\"soon\""}},
      {"no such file", {"--config", directory_ / "none.yaml"}, {}, {"none.yaml", "cannot be read"}},
      {"unknown key in the file",
       {"--config", yaml("a.yaml", "data: x\nsesion-grace: 1s\n")},
       {},
       {"a.yaml", "line 2", "sesion-grace", "session-grace"}},
      {"bad value in the file",
       {"--config", yaml("b.yaml", "data: x\nsession-grace: soon\n")},
       {},
       {"b.yaml", "session-grace", "\"soon\""}},
      {"a list for a value",
       {"--config", yaml("c.yaml", "data: [x, y]\n")},
       {},
       {"c.yaml", "line 1", "data", "single value"}},
      {"no YAML", {"--config", yaml("d.yaml", "data: [x\n")}, {}, {"d.yaml"}},
      {"no map", {"--config", yaml("e.yaml", "- data\n")}, {}, {"e.yaml", "map"}},
      {"unknown limit of a queue",
       {"--config", yaml("f.yaml", "queues:\n  gpu: {speed: 3}\n")},
       {},
       {"f.yaml", "gpu", "speed", "concurrency"}},
      {"bad limit of a queue",
       {"--config", yaml("g.yaml", "queues:\n  gpu: {rate: fast}\n")},
       {},
       {"g.yaml", "gpu", "rate", "\"fast\""}},
      {"a rate too small to count",
       {"--config", yaml("h.yaml", "queues:\n  gpu: {rate: 0.0003}\n")},
       {},
       {"h.yaml", "gpu", "rate", "0.0003", "0.001"}},
      {"half a slot",
       {"--config", yaml("i.yaml", "queues:\n  gpu: {concurrency: 0.5}\n")},
       {},
       {"i.yaml", "gpu", "concurrency", "0.5", "from 1"}},
      {"no number",
       {"--config", yaml("j.yaml", "queues:\n  gpu: {concurrency: nan}\n")},
       {},
       {"j.yaml", "gpu", "concurrency", "nan"}},
      {"nearly `queues`",
       {"--config", yaml("k.yaml", "queue:\n  gpu: {concurrency: 1}\n")},
       {},
       {"k.yaml", "\"queue\"", "did you mean \"queues\""}},
      {"like no setting",
       {"--config", yaml("l.yaml", "zebra: 1\n")},
       {},
       {"l.yaml", "zebra", "fluxd --help"}},
      {"no port", {"--data", "x", "--listen", "nonsense"}, {}, {"\"nonsense\"", "HOST:PORT"}},
      {"a port too large",
       {"--data", "x", "--listen", "127.0.0.1:70000"},
       {},
       {"127.0.0.1:70000", "HOST:PORT"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    std::vector<std::string> arguments = c.arguments;
    for (std::string& argument : arguments) {
      if (argument == "x") argument = directory_ / "unused";
    }
    const Finished finished = RunToEnd(FLUX_E2E_FLUXD, arguments, c.environment);
    EXPECT_EQ(finished.exit_code, kExitUsage);
    for (const std::string& word : c.words) EXPECT_THAT(finished.log, HasSubstr(word));
    EXPECT_THAT(finished.output, IsEmpty());
  }
  EXPECT_FALSE(fs::exists(directory_ / "unused")) << "a refused start left something behind";
}

TEST_F(FluxdProcess, AnAddressThatCannotBeListenedOnIsNamed) {
  StartFluxd();
  const auto start = [&](const std::string& address) {
    return RunToEnd(FLUX_E2E_FLUXD, {"--data", directory_ / "second", "--reserve-bytes", "0",
                                     "--ballast-bytes", "0", "--listen", address});
  };
  const std::map<std::string, std::string> why = {
      {fluxd_.target(), "another process listens there"},
      {"192.0.2.1:4510", "it is not an address of this machine"}};
  for (const auto& [address, words] : why) {
    SCOPED_TRACE(address);
    const Finished finished = start(address);
    EXPECT_EQ(finished.exit_code, kExitFailed);
    EXPECT_THAT(finished.log, AllOf(HasSubstr(address), HasSubstr(words), HasSubstr("--listen")));
    EXPECT_THAT(finished.log, Not(HasSubstr("chttp2"))) << "gRPC speaks in between";
  }
  EXPECT_TRUE(api().Info().ok()) << "the first one serves on";
}

// ---- the data directory
// ----------------------------------------------------------------------------------------

TEST_F(FluxdProcess, ASecondProcessOnTheSameDirectoryIsRefused) {
  StartFluxd();
  const Finished second =
      RunToEnd(FLUX_E2E_FLUXD, {"--data", fluxd_.data(), "--listen", "127.0.0.1:0"});
  EXPECT_EQ(second.exit_code, kExitStore);
  EXPECT_THAT(second.log, AllOf(HasSubstr(fluxd_.data()), HasSubstr("in use"),
                                HasSubstr(absl::StrCat("pid ", fluxd_.process().pid()))));
  EXPECT_TRUE(api().Info().ok());
  KillFluxd();
  StartFluxd();
}

TEST_F(FluxdProcess, DirectoriesThatCannotBeUsedAreRefusedAndLeftAlone) {
  const std::string foreign = directory_ / "foreign";
  fs::create_directory(foreign);
  WriteFile(foreign + "/thesis.tex", "years of work");
  const std::string file = directory_ / "file";
  WriteFile(file, "text");
  struct Case {
    std::string path;
    std::vector<std::string> words;
  };
  const std::vector<Case> cases = {
      {foreign, {foreign, "not a Flux data directory"}},
      {file, {file, "not a directory"}},
      {file + "/below", {file + "/below"}},
      {"/proc/flux-cannot-be-here", {"/proc/flux-cannot-be-here"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.path);
    const Finished finished =
        RunToEnd(FLUX_E2E_FLUXD, {"--data", c.path, "--listen", "127.0.0.1:0"});
    EXPECT_EQ(finished.exit_code, kExitStore);
    for (const std::string& word : c.words) EXPECT_THAT(finished.log, HasSubstr(word));
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(foreign), {}), 1);
  EXPECT_EQ(ReadFile(foreign + "/thesis.tex"), "years of work");
  EXPECT_EQ(ReadFile(file), "text");
}

// A directory in use and a new one, both on a file system that is mounted to be read alone.
TEST_F(FluxdProcess, ADirectoryThatCannotBeWrittenIsRefusedAndLeftAlone) {
  StartFluxd();
  Fill(2);
  KillFluxd();
  const std::string empty = directory_ / "empty";
  fs::create_directory(empty);
  for (const std::string& data : {fluxd_.data(), empty}) {
    SCOPED_TRACE(data);
    const std::string mount =
        absl::StrCat("mount --bind ", data, " ", data, " && mount -o remount,bind,ro ", data);
    if (RunToEnd("/usr/bin/unshare", {"--mount", "/bin/sh", "-c", mount}).exit_code != 0) {
      GTEST_SKIP() << "mounting a file system is not permitted here";
    }
    const Finished refused =
        RunToEnd("/usr/bin/unshare", {"--mount", "/bin/sh", "-c", mount + " && exec \"$@\"", "sh",
                                      FLUX_E2E_FLUXD, "--data", data, "--listen", "127.0.0.1:0"});
    EXPECT_EQ(refused.exit_code, kExitStore);
    EXPECT_THAT(refused.log, AllOf(HasSubstr("data directory " + data + " cannot be written"),
                                   HasSubstr("Read-only file system"),
                                   HasSubstr("must be on a file system that can be written")));
  }
  EXPECT_TRUE(fs::is_empty(empty));
  StartFluxd();
  ExpectFilled(2);
}

TEST_F(FluxdProcess, ADirectoryOfANewerFormatIsRefused) {
  StartFluxd();
  Fill(2);
  KillFluxd();
  const std::string path = fluxd_.data() + "/FORMAT";
  const std::string good = ReadFile(path);
  auto format = store::DecodeDataFormat(good, path);
  ASSERT_TRUE(format.ok()) << format.status();
  format->version = store::kDataFormatVersion + 1;
  WriteFile(path, store::EncodeDataFormat(*format));
  const Finished refused = StartAndFail();
  EXPECT_EQ(refused.exit_code, kExitStore);
  EXPECT_THAT(refused.log, AllOf(HasSubstr(path), HasSubstr("newer"), HasSubstr("upgrade")));
  WriteFile(path, good);
  StartFluxd();
  ExpectFilled(2);
}

TEST_F(FluxdProcess, ATornTailThatNobodyWasToldOfIsDroppedAndSaidSo) {
  StartFluxd();
  Fill(10);
  KillFluxd();
  const std::string wal = NewestWal();
  ASSERT_NE(wal, "");
  // The head of a record that promises more than follows.
  WriteFile(wal, ReadFile(wal) + std::string("\x11\x22\x33\x44\x00\x10\x01", 7) + "half of it");
  StartFluxd();
  EXPECT_THAT(fluxd_.log(), AllOf(HasSubstr(wal), HasSubstr("never acknowledged")));
  ExpectFilled(10);
}

TEST_F(FluxdProcess, DamageIsNamedAndNotGuessedAt) {
  StartFluxd();
  Fill(10);
  KillFluxd();
  const std::string wal = NewestWal();
  ASSERT_NE(wal, "");
  const std::string good = ReadFile(wal);
  size_t synced = 0;
  {
    // Rows that were written behind lie after what was acknowledged; they may be lost.
    auto marks = store::SyncedMarks::Open(fluxd_.data() + "/SYNCED");
    ASSERT_TRUE(marks.ok()) << marks.status();
    synced = (*marks)->found().wal.bytes;
    ASSERT_GT(synced, 0u);
    ASSERT_LE(synced, good.size());
  }
  const std::string copy = directory_ / "copy";
  fs::copy(fluxd_.data(), copy, fs::copy_options::recursive);
  std::vector<std::pair<std::string, std::string>> cases = {
      {"cut by a byte", good.substr(0, synced - 1)},
      {"cut in half", good.substr(0, synced / 2)},
      {"emptied", ""},
  };
  for (size_t at : {synced / 10, synced / 2, synced - 1}) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    cases.emplace_back(absl::StrCat("a bit flipped at byte ", at), bad);
  }
  for (const auto& [name, bytes] : cases) {
    SCOPED_TRACE(name);
    WriteFile(wal, bytes);
    const Finished refused = StartAndFail();
    EXPECT_EQ(refused.exit_code, kExitStore);
    EXPECT_THAT(refused.log, AllOf(HasSubstr(wal), HasSubstr("damaged"), HasSubstr("backup")));
    EXPECT_TRUE(ReadFile(wal) == bytes) << "a refused start changed the file";
    if (HasFailure()) {  // it may have gone on from there
      fs::remove_all(fluxd_.data());
      fs::copy(copy, fluxd_.data(), fs::copy_options::recursive);
    }
  }
  WriteFile(wal, good);
  StartFluxd();
  ExpectFilled(10);
}

// The marks are gone, as a power failure may leave it, and the log ends in bytes that do not
// verify.
TEST_F(FluxdProcess, ADamagedTailIsDroppedOnlyIfTheOperatorSaysSo) {
  StartFluxd();
  Fill(10);
  KillFluxd();
  const std::string wal = NewestWal();
  ASSERT_NE(wal, "");
  fs::remove(fluxd_.data() + "/SYNCED");
  const std::string tail = std::string("\x11\x22\x33\x44\x05\x00\x01", 7) + "wrong";
  WriteFile(wal, ReadFile(wal) + tail);
  for (const Flags& flags : {Flags{}, Flags{{"accept-damaged-tail", "false"}}}) {
    const Finished refused = StartAndFail(flags);
    EXPECT_EQ(refused.exit_code, kExitStore);
    EXPECT_THAT(refused.log, AllOf(HasSubstr(wal), HasSubstr("damaged"), HasSubstr("backup"),
                                   HasSubstr("--accept-damaged-tail")));
  }
  const size_t before = fluxd_.log().size();
  StartFluxd({{"accept-damaged-tail", "true"}});
  EXPECT_THAT(fluxd_.log().substr(before),
              AllOf(HasSubstr(absl::StrCat("dropped the last ", tail.size(), " bytes of ", wal)),
                    HasSubstr("as accept-damaged-tail asks"), HasSubstr("cannot be told")));
  ExpectFilled(10);
}

// Damage to what was acknowledged is not a tail.
TEST_F(FluxdProcess, AcceptingADamagedTailForgivesNothingElse) {
  StartFluxd();
  Fill(10);
  KillFluxd();
  const std::string wal = NewestWal();
  ASSERT_NE(wal, "");
  auto marks = store::SyncedMarks::Open(fluxd_.data() + "/SYNCED");
  ASSERT_TRUE(marks.ok()) << marks.status();
  std::string bytes = ReadFile(wal);
  const size_t at = (*marks)->found().wal.bytes / 2;
  bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
  WriteFile(wal, bytes);
  const Finished refused = StartAndFail({{"accept-damaged-tail", "true"}});
  EXPECT_EQ(refused.exit_code, kExitStore);
  EXPECT_THAT(refused.log, AllOf(HasSubstr(wal), HasSubstr("had been acknowledged")));
}

// The flag may stand alone, in front of others, and takes no third value.
TEST_F(FluxdProcess, AcceptingADamagedTailIsTrueOrFalse) {
  const std::string file = directory_ / "file";
  WriteFile(file, "text");
  const Finished alone = RunToEnd(
      FLUX_E2E_FLUXD, {"--accept-damaged-tail", "--data", file, "--listen", "127.0.0.1:0"});
  EXPECT_EQ(alone.exit_code, kExitStore) << alone.log;
  EXPECT_THAT(alone.log, HasSubstr("not a directory"));
  const Finished third =
      RunToEnd(FLUX_E2E_FLUXD, {"--accept-damaged-tail", "maybe", "--data", file});
  EXPECT_EQ(third.exit_code, kExitUsage);
  EXPECT_THAT(third.log, AllOf(HasSubstr("--accept-damaged-tail"), HasSubstr("true or false")));
}

TEST_F(FluxdProcess, BelowTheReserveStartsEventsAndSchedulesAreRefusedAndRunningWorkGoesOn) {
  struct statvfs space {};
  ASSERT_EQ(::statvfs(directory_.path().c_str(), &space), 0);
  const uint64_t free_gib = static_cast<uint64_t>(space.f_bavail) * space.f_frsize >> 30;
  StartFluxd();
  StartWorker({.id = "w"});
  ASSERT_TRUE(api().Put(DefinitionOf(kGated)).ok());
  ASSERT_TRUE(api().Start(StartOf(kGated, "running", std::string("gate"))).ok());
  ledger_.Await({.event = "begin"});
  KillFluxd();
  StartFluxd({{"reserve-bytes", absl::StrCat(free_gib + 1024, "GiB")}});
  auto refused = api().Start(StartOf(kGated, "refused", std::string("gate")));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted) << refused.status();
  EXPECT_THAT(std::string(refused.status().message()),
              AllOf(HasSubstr(fluxd_.data()), HasSubstr("nearly full"), HasSubstr("freed")));
  v1::SendEventRequest news;
  *news.mutable_execution() = Ref("running");
  news.set_event("news");
  grpc::ClientContext event_context;
  v1::SendEventResponse event;
  const grpc::Status unsent = api().workflows().SendEvent(&event_context, news, &event);
  EXPECT_EQ(unsent.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(unsent.error_message(),
              AllOf(HasSubstr("nearly full"), HasSubstr("events are refused")));
  v1::CreateScheduleRequest hourly;
  hourly.mutable_schedule()->set_schedule_id("hourly");
  hourly.mutable_schedule()->mutable_spec()->add_crons("@hourly");
  *hourly.mutable_schedule()->mutable_start() = StartOf(kGated, "hourly", std::string("gate"));
  grpc::ClientContext schedule_context;
  v1::CreateScheduleResponse schedule;
  const grpc::Status unscheduled = v1::ScheduleService::NewStub(api().channel())
                                       ->CreateSchedule(&schedule_context, hourly, &schedule);
  EXPECT_EQ(unscheduled.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(unscheduled.error_message(),
              AllOf(HasSubstr("nearly full"), HasSubstr("new schedules are refused")));
  EXPECT_TRUE(api().Info()->degraded());
  EXPECT_THAT(api().Info()->degraded_reason(), HasSubstr("events and new schedules"));
  ledger_.OpenGate("gate");
  auto result = api().AwaitClosed(Ref("running"));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_EQ(*api().Count(), 1u);
}

// On a small file system of its own, in a mount namespace of its own; where mounting is not
// permitted, on what the real one has left above a reserve that is nearly reached.
TEST_F(FluxdProcess, OnADiskThatFillsUpStartsAreRefusedAndWhatWasAcknowledgedIsFinished) {
  constexpr uint64_t kMiB = 1 << 20;
  constexpr uint64_t kFileSystemBytes = 256 * kMiB;
  uint64_t reserve = 96 * kMiB;
  fs::create_directory(fluxd_.data());
  const std::string mount =
      absl::StrCat("mount -t tmpfs -o size=", kFileSystemBytes, " flux ", fluxd_.data());
  if (RunToEnd("/usr/bin/unshare", {"--mount", "/bin/sh", "-c", mount}).exit_code == 0) {
    fluxd_.set_wrapper(
        {"/usr/bin/unshare", "--mount", "/bin/sh", "-c", mount + " && exec \"$@\"", "sh"});
  } else {
    reserve = fs::space(fluxd_.data()).available - (kFileSystemBytes - reserve);
  }
  StartFluxd({{"reserve-bytes", absl::StrCat(reserve)}, {"ballast-bytes", "8MiB"}});
  StartWorker({.id = "w", .slots = 16});
  ASSERT_TRUE(api().Put(DefinitionOf(kGated)).ok());
  // Nearly as large as an input may be that travels with the log.
  const std::string gate(200, 'g');
  v1::StartWorkflowRequest request = StartOf(kGated, "", gate);
  *request.mutable_inputs(0) = Json("\"" + gate + "\"" + std::string(60'000, ' '));
  constexpr int kStartsMax = 20'000;  // over a gigabyte
  std::vector<std::string> acknowledged;
  absl::Status refused;
  while (refused.ok() && acknowledged.size() < kStartsMax) {
    request.set_workflow_id(absl::StrCat("filling", acknowledged.size()));
    request.set_request_id(request.workflow_id());
    auto started = api().Start(request);
    if (started.ok()) acknowledged.push_back(request.workflow_id());
    refused = started.status();
  }
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
  EXPECT_THAT(std::string(refused.message()), AllOf(HasSubstr("nearly full"), HasSubstr("freed")));
  EXPECT_GT(acknowledged.size(), 100u);
  EXPECT_TRUE(api().Info()->degraded());
  ledger_.OpenGate(gate);
  for (const std::string& id : acknowledged) {
    auto result = api().AwaitClosed(Ref(id));
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(result->status(), v1::EXECUTION_STATUS_COMPLETED) << id;
  }
  EXPECT_EQ(*api().Count(), acknowledged.size());
  EXPECT_EQ(ExitCode(fluxd_.process().Terminate()), 0);
}

}  // namespace
}  // namespace flux::e2e
