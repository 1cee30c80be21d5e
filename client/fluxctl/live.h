// What a watcher sees of a running execution: a view redrawn in place on a terminal, plain lines
// elsewhere. Progress is pure (time is an argument); Screen writes.
#ifndef FLUX_CLIENT_FLUXCTL_LIVE_H_
#define FLUX_CLIENT_FLUXCTL_LIVE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/fluxctl/text.h"
#include "flux/v1/bulk.pb.h"
#include "flux/v1/workflow.pb.h"

namespace flux::ctl {

// Speed of a counter over the last kRateWindow. Thread-compatible; a handful of samples.
class Rate {
 public:
  void Add(absl::Time now, uint64_t done);
  // Per second; 0 until there are two samples a second apart.
  double PerSecond() const;

 private:
  struct Sample {
    absl::Time time;
    uint64_t done;
  };
  std::deque<Sample> samples_;
};

// The state of one watched execution. Feed it every answer of WatchExecution, then ask for lines.
// Thread-compatible.
class Progress {
 public:
  // `now` is our own clock at the arrival; the server's runs on from there in the durations shown.
  // Returns what changed since the answer before, as plain lines without a newline (all of it, the
  // first time). A map's counts make a line each kMapLinePermille of its items.
  std::vector<std::string> Update(const v1::WatchExecutionResponse& response, absl::Time now);

  // The live view: a title, then a line a step; at most `rows` lines, none wider than
  // theme.columns. Where the steps are more than fit, the finished ones make place first, and a
  // line says how many are hidden.
  std::vector<std::string> View(const Theme& theme, std::size_t rows, absl::Time now) const;

  // "chart-17 completed in 12s", "chart-17 failed after 3s: rejected: no".
  std::string Summary(absl::Time now) const;

  // A connection that is being mended is shown in the title.
  void set_connected(bool connected) { connected_ = connected; }
  bool started() const { return started_; }
  const v1::WatchExecutionResponse& last() const { return last_; }

 private:
  absl::Time ServerTime(absl::Time now) const;
  std::string StepLine(const Theme& theme, const v1::StepInfo& step, std::size_t name_width,
                       absl::Time now) const;

  v1::WatchExecutionResponse last_;
  bool started_ = false;
  bool connected_ = true;
  absl::Duration clock_offset_;               // the server's clock minus ours
  std::map<std::string, Rate> rates_;         // by map step
  std::map<std::string, std::string> shown_;  // by step: its last plain line, without the time
};

// The state of one watched bulk operation: a line. Feed it every answer of GetBulkOperation.
// Thread-compatible.
class BulkProgress {
 public:
  // A plain line without a newline if there is news: its state, or another kMapLinePermille of what
  // it matched.
  std::optional<std::string> Update(const v1::BulkOperation& operation, absl::Time now);

  // The live view: one line, no wider than theme.columns.
  std::string View(const Theme& theme) const;

  void set_connected(bool connected) { connected_ = connected; }
  bool started() const { return started_; }

 private:
  v1::BulkOperation last_;
  bool started_ = false;
  bool connected_ = true;
  Rate rate_;
  std::string shown_;  // what the last plain line told
};

// A block of lines at the bottom of a terminal that is drawn over itself. Writes each frame with
// one call, hides the cursor while it lives, survives a resize between frames. The destructor shows
// the cursor again.
class Screen {
 public:
  using Write = std::function<void(const std::string&)>;
  explicit Screen(Write write) : write_(std::move(write)) {}
  ~Screen();
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  // Lines must be at most `columns` wide (escape sequences aside).
  void Draw(const std::vector<std::string>& lines, std::size_t columns);
  // Takes the block away, so that something else can be printed; the next Draw() begins below it.
  void Erase();
  // Leaves the block as it stands and gives the cursor back.
  void Release();

 private:
  std::string Home(std::size_t columns) const;

  Write write_;
  std::vector<std::size_t> widths_;  // of the lines on the screen
  std::size_t columns_ = 0;
  bool cursor_hidden_ = false;
};

}  // namespace flux::ctl

#endif  // FLUX_CLIENT_FLUXCTL_LIVE_H_
