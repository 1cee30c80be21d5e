// A worker for the end-to-end tests. Every execution of a function is written to a ledger outside
// Flux, one line at its beginning and one at its end, each a single write(2) to a file opened with
// O_APPEND: whole, in order, and not undone by kill -9.
//
//   event, worker, token, task, workflow id, step, attempt, detail - separated by tabs
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "flux/worker.h"
#include "tests/e2e/tasks.h"

namespace flux::e2e {
namespace {

constexpr absl::Duration kGatePoll = absl::Milliseconds(1);

struct Settings {
  std::string target, ledger, gates, id, queue = "default";
  uint32_t slots = 4;
  uint32_t prefetch = 0;
  uint32_t dawdle_ms = 0;
};

class Book {
 public:
  Book(std::string worker, const std::string& path, std::string gates, uint32_t dawdle_ms)
      : worker_(std::move(worker)),
        gates_(std::move(gates)),
        dawdle_ms_(dawdle_ms),
        file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {}
  bool ok() const { return file_ >= 0; }
  const std::string& worker() const { return worker_; }

  void Write(const char* event, const TaskContext& context, std::string_view task,
             const std::string& detail) const {
    const std::string line = absl::StrCat(
        event, "\t", worker_, "\t", context.fencing_token(), "\t", std::string(task), "\t",
        context.workflow_id(), "\t", context.step(), "\t", context.attempt(), "\t", detail, "\n");
    if (::write(file_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
      std::cerr << "the ledger cannot be written\n";
      ::abort();
    }
  }

  // Takes up to so long, as the token has it: a worker that is killed should often die at work.
  void Dawdle(const TaskContext& context) const {
    if (dawdle_ms_ == 0) return;
    const size_t hash = std::hash<std::string>()(context.fencing_token());
    absl::SleepFor(absl::Milliseconds(hash % dawdle_ms_));
  }

  // False: the result is wanted no more.
  bool WaitAtGate(const TaskContext& context, const std::string& name) const {
    const std::string path = gates_ + "/" + name;
    struct stat found {};
    while (::stat(path.c_str(), &found) != 0) {
      if (context.cancelled()) return false;
      absl::SleepFor(kGatePoll);
    }
    return true;
  }

 private:
  const std::string worker_;
  const std::string gates_;
  const uint32_t dawdle_ms_;
  const int file_;
};

std::string Text(const absl::Status& status) { return std::string(status.message()); }
std::string Text(int64_t value) { return absl::StrCat(value); }
std::string Text(const std::string& value) {
  return value.size() <= 200 ? value : absl::StrCat(value.size(), " bytes");
}

// Registers `function` with the ledger around it.
template <typename R, typename A, typename F>
void Add(Worker& worker, const Book& book, const Task<R(A)>& task, F function) {
  worker.Register(
      task,
      [&book, name = task.name(), function](TaskContext& context, A argument) -> absl::StatusOr<R> {
        book.Write("begin", context, name, "");
        book.Dawdle(context);
        absl::StatusOr<R> result = function(context, std::move(argument));
        book.Write("end", context, name, result.ok() ? Text(*result) : Text(result.status()));
        return result;
      });
}

int Run(const Settings& settings) {
  const Book book(settings.id, settings.ledger, settings.gates, settings.dawdle_ms);
  if (!book.ok()) return std::cerr << "cannot open " << settings.ledger << "\n", 2;
  Worker worker({.target = settings.target,
                 .queue = settings.queue,
                 .slots = settings.slots,
                 .prefetch = settings.prefetch,
                 .id = settings.id});
  Add(worker, book, kAddOne, [](TaskContext&, int64_t n) { return n + 1; });
  Add(worker, book, kSum, [](TaskContext&, const std::vector<int64_t>& list) {
    int64_t sum = 0;
    for (int64_t n : list) sum += n;
    return sum;
  });
  Add(worker, book, kStamp, [](TaskContext& context, int64_t) { return context.fencing_token(); });
  Add(worker, book, kWaitAtGate,
      [&](TaskContext& context, const std::string& gate) -> absl::StatusOr<std::string> {
        if (!book.WaitAtGate(context, gate)) return absl::CancelledError("wanted no more");
        return book.worker();
      });
  Add(worker, book, kFailTimes, [](TaskContext& context, int64_t times) -> absl::StatusOr<int64_t> {
    if (context.attempt() <= times) {
      return kTryAgain(absl::StrCat("attempt ", context.attempt(), " fails, as asked"));
    }
    return context.attempt();
  });
  Add(worker, book, kRefuse, [](TaskContext&, bool marked) -> absl::StatusOr<int64_t> {
    absl::Status refused = kRefused("it will never work");
    return marked ? NonRetriable(refused) : refused;
  });
  Add(worker, book, kProgress,
      [&](TaskContext& context, const std::string& gate) -> absl::StatusOr<int64_t> {
        if (context.attempt() > 1) return context.LastProgress<int64_t>().value_or(-1);
        if (absl::Status status = context.Heartbeat(int64_t{41}); !status.ok()) return status;
        book.WaitAtGate(context, gate);
        return kTryAgain("the first attempt fails");
      });
  Add(worker, book, kSilent, [](TaskContext& context, int64_t) -> absl::StatusOr<int64_t> {
    if (context.attempt() > 1) return context.attempt();
    while (!context.cancelled()) absl::SleepFor(kGatePoll);
    return absl::CancelledError("wanted no more");
  });
  Add(worker, book, kMakeText,
      [](TaskContext&, int64_t bytes) { return std::string(static_cast<size_t>(bytes), 'x'); });
  Add(worker, book, kThrow, [](TaskContext&, const std::string& text) -> absl::StatusOr<int64_t> {
    throw std::runtime_error(text);
  });
  const absl::Status status = worker.Run();
  const WorkerStats stats = worker.stats();
  std::cerr << settings.id << ": " << status << ", completed " << stats.completed << ", refused "
            << stats.refused << ", connects " << stats.connects << "\n";
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace flux::e2e

int main(int argc, char** argv) {
  flux::e2e::Settings settings;
  CLI::App app{"A worker that writes a ledger, for the end-to-end tests."};
  app.add_option("--target", settings.target, "Coordinator, host:port")->required();
  app.add_option("--ledger", settings.ledger, "File to append to")->required();
  app.add_option("--gates", settings.gates, "Directory of gates")->required();
  app.add_option("--id", settings.id, "Worker id")->required();
  app.add_option("--queue", settings.queue, "Task queue");
  app.add_option("--slots", settings.slots, "Tasks at one time");
  app.add_option("--prefetch", settings.prefetch, "Tasks fetched beyond the slots");
  app.add_option("--dawdle-ms", settings.dawdle_ms, "Each function takes up to so long");
  CLI11_PARSE(app, argc, argv);
  return flux::e2e::Run(settings);
}
