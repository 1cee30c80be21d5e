// fluxd: the coordinator. `fluxd --data DIR` is a whole system; `fluxd dev` one that forgets.
#include <fcntl.h>
#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <pthread.h>
#include <signal.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "engine/core/json_value.h"
#include "engine/server/config.h"
#include "engine/server/coordinator.h"
#include "engine/server/open_files.h"
#include "proto/bridge.h"

namespace flux::server {
namespace {

// Exit codes, as --help says.
constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitStore = 3;

constexpr char kFooter[] =
    R"(Each setting is a flag, an environment variable (FLUX_ and its name in upper case, e.g.
FLUX_SESSION_GRACE) and a key of the YAML file given with --config. A flag wins over the environment,
that over the file. Limits of task queues are set in the file:

  queues:
    gpu: {concurrency: 4, rate: 10, burst: 20, per-key-concurrency: 1}

Examples:
  fluxd --data /var/lib/flux                 a whole system, on 127.0.0.1:4510
  fluxd --data /var/lib/flux --listen 0.0.0.0:4510 --log-format json
  fluxd dev                                  the same on a temporary directory, removed at exit

Signals: SIGTERM and SIGINT finish what is on its way to the disk and exit; a second one exits at once.
Exit codes: 0 stopped as asked; 1 a failure; 2 wrong usage or settings; 3 the data directory cannot be
used, or a write to it failed.)";

void SetUpLogging(const Config& config) {
  auto logger = spdlog::stderr_color_mt("fluxd");
  if (config.log_format == "json") {
    class JsonFormatter final : public spdlog::formatter {
     public:
      void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
        const absl::Time when = absl::FromChrono(message.time);
        const auto level = spdlog::level::to_string_view(message.level);
        const std::string line = absl::StrCat(
            R"({"time":")", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", when, absl::UTCTimeZone()),
            R"(","level":")", absl::string_view(level.data(), level.size()), R"(","message":)",
            engine::QuoteJson({message.payload.data(), message.payload.size()}), "}\n");
        out.append(line.data(), line.data() + line.size());
      }
      std::unique_ptr<spdlog::formatter> clone() const override {
        return std::make_unique<JsonFormatter>();
      }
    };
    logger->set_formatter(std::make_unique<JsonFormatter>());
  } else {
    logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %^%-5l%$ %v");
  }
  logger->set_level(
      spdlog::level::from_str(config.log_level == "warning" ? "warn" : config.log_level));
  spdlog::set_default_logger(std::move(logger));
  // The lines of the libraries, too, are events of this log; what matters to people is said by us.
  gpr_set_log_function([](gpr_log_func_args* args) { spdlog::debug("grpc: {}", args->message); });
  google::protobuf::SetLogHandler(
      [](google::protobuf::LogLevel, const char*, int, const std::string& text) {
        spdlog::debug("protobuf: {}", text);
      });
}

absl::Status WritePortFile(const std::string& path, int port) {
  // Written aside and renamed, so that a reader never sees half of it.
  const std::string aside = path + ".new";
  {
    std::ofstream out(aside);
    out << port << "\n";
    if (!out.flush()) {
      return absl::UnavailableError(absl::StrCat("cannot write --port-file ", aside));
    }
  }
  std::error_code error;
  std::filesystem::rename(aside, path, error);
  if (error)
    return absl::UnavailableError(
        absl::StrCat("cannot write --port-file ", path, ": ", error.message()));
  return absl::OkStatus();
}

// Removes a temporary directory when main is left.
class TemporaryDirectory {
 public:
  TemporaryDirectory() = default;
  ~TemporaryDirectory() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  absl::Status Make() {
    std::string pattern = (std::filesystem::temp_directory_path() / "fluxd-dev-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) {
      return absl::UnavailableError(
          absl::StrCat("cannot make a temporary directory like ", pattern));
    }
    path_ = pattern;
    return absl::OkStatus();
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

int Main(int argc, char** argv) {
  // Debian's libraries watch the order in which locks are taken, for those who look for deadlocks.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  CLI::App app{
      "fluxd: the Flux coordinator. Keeps workflows durable and hands their tasks to workers."};
  app.name("fluxd");
  app.footer(kFooter);
  app.set_version_flag("--version", FLUX_VERSION);
  std::map<std::string, std::string> flags;
  std::string file;
  if (const char* variable = std::getenv("FLUX_CONFIG"); variable != nullptr) file = variable;
  app.add_option("--config", file, "YAML file with settings (FLUX_CONFIG)");
  for (const Setting& setting : Settings()) {
    std::string help = setting.help;
    if (!setting.fallback.empty()) help += " [" + setting.fallback + "]";
    CLI::Option* option = app.add_option_function<std::string>(
        "--" + setting.name,
        [&flags, name = setting.name, toggle = setting.toggle](const std::string& text) {
          flags[name] = toggle && text.empty() ? "true" : text;
        },
        help);
    option->type_name("");
    if (setting.toggle) option->expected(0, 1);
  }
  CLI::App* dev = app.add_subcommand(
      "dev", "Serve on a temporary data directory that is removed at exit: for trying things out");
  app.require_subcommand(0, 1);
  dev->fallthrough();  // it takes the same settings
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kExitOk : kExitUsage;
  }

  Config config;
  if (absl::Status status = LoadConfig(
          flags, [](const std::string& name) { return std::getenv(name.c_str()); }, file, &config);
      !status.ok()) {
    // In what form to log is one of the settings.
    std::cerr << "fluxd: " << Message(status) << "\n";
    return kExitUsage;
  }
  SetUpLogging(config);
  const auto fail = [](int code, const absl::Status& status) {
    spdlog::error("{}", Message(status));
    return code;
  };
  TemporaryDirectory temporary;
  if (dev->parsed()) {
    if (!config.data.empty()) {
      return fail(kExitUsage, absl::InvalidArgumentError(absl::StrCat(
                                  "`fluxd dev` makes its own temporary directory: leave out the "
                                  "one that is given (",
                                  config.data_origin, ")")));
    }
    if (absl::Status status = temporary.Make(); !status.ok()) return fail(kExitFailed, status);
    config.data = temporary.path();
  }
  if (config.data.empty()) {
    return fail(kExitUsage, absl::InvalidArgumentError(
                                "no data directory: give one with --data DIR, or try `fluxd dev`"));
  }
  if (const std::string warning = RaiseOpenFilesLimit(OpenFilesWanted()); !warning.empty()) {
    spdlog::warn("{}", warning);
  }

  // Signals are taken by this thread alone; threads made later inherit the mask.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  auto coordinator = Coordinator::Start(config, [](const absl::Status& status) {
    spdlog::critical("the store failed: {}. Exiting, so that a restart recovers what is on disk.",
                     status.ToString());
    spdlog::shutdown();
    _exit(kExitStore);
  });
  if (!coordinator.ok()) {
    const bool settings = coordinator.status().code() == absl::StatusCode::kInvalidArgument;
    const bool network = coordinator.status().code() == absl::StatusCode::kUnavailable;
    return fail(settings ? kExitUsage : network ? kExitFailed : kExitStore, coordinator.status());
  }
  if (!config.port_file.empty()) {
    if (absl::Status status = WritePortFile(config.port_file, (*coordinator)->port());
        !status.ok()) {
      return fail(kExitFailed, status);
    }
  }
  const std::string host = config.listen.substr(0, config.listen.rfind(':'));
  spdlog::info("fluxd {} serves on {}:{}, data in {}, pid {}", FLUX_VERSION, host,
               (*coordinator)->port(), config.data, getpid());

  int signal_number = 0;
  sigwait(&signals, &signal_number);
  spdlog::info("{}: shutting down", signal_number == SIGTERM ? "SIGTERM" : "SIGINT");
  // A second signal ends it at once: everything acknowledged is on disk already.
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  const bool drained = (*coordinator)->Shutdown();
  coordinator->reset();
  spdlog::info(
      drained ? "stopped"
              : "stopped with work still on its way to the disk; nothing acknowledged is lost");
  return kExitOk;
}

}  // namespace
}  // namespace flux::server

// Read by jemalloc at its start (jemalloc(3)): freed pages go back to the system soon, large ones
// at once (docs/decisions/0006-jemalloc.md).
extern "C" {
extern const char* malloc_conf;
const char* malloc_conf = "dirty_decay_ms:200,oversize_threshold:262144,narenas:2,tcache_max:4096";
}

int main(int argc, char** argv) { return flux::server::Main(argc, argv); }
