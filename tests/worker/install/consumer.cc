// Uses every installed header. Exits with 0 if an inline run and the two ways to be unreachable
// behave.
#include <flux/client.h>
#include <flux/codec.h>
#include <flux/error.h>
#include <flux/inline_runner.h>
#include <flux/struct.h>
#include <flux/task.h>
#include <flux/worker.h>
#include <flux/workflow.h>

#include <iostream>
#include <string>

struct Page {
  int number = 0;
  std::string text = {};
};
FLUX_STRUCT(Page, number, text)

inline constexpr flux::Task<int(Page)> kCount{"count", {.timeout = absl::Seconds(5)}};
inline constexpr flux::Workflow<int(Page)> kLetters{
    "letters", {.version = "1"}, [](flux::Graph& g, flux::Value<Page> page) {
      return g.Call(kCount, page);
    }};

int Count(const Page& page) { return static_cast<int>(page.text.size()); }

int main() {
  flux::TaskSet tasks;
  tasks.Register(kCount, Count);
  const absl::StatusOr<int> letters = flux::InlineRunner(tasks).Run(kLetters, Page{1, "seven"});
  if (!letters.ok() || *letters != 5) {
    std::cerr << "inline run: " << letters.status() << '\n';
    return 1;
  }
  const auto client =
      flux::Client::Connect("127.0.0.1:1", {.connect_timeout = absl::Milliseconds(1)});
  if (client.status().code() != absl::StatusCode::kUnavailable) {
    std::cerr << "client: " << client.status() << '\n';
    return 1;
  }
  flux::Worker worker({.target = "nowhere", .slots = 1});
  worker.Register(kCount, Count);
  if (worker.Run().code() != absl::StatusCode::kInvalidArgument) return 1;
  return 0;
}
