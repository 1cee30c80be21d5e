#include "client/fluxctl/live.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/fluxctl/bulk_view.h"
#include "client/fluxctl/table.h"
#include "client/fluxctl/view.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

constexpr absl::Duration kRateWindow = absl::Seconds(20);
constexpr absl::Duration kRateMin = absl::Seconds(1);
constexpr std::size_t kNameColumnsMax = 32;
constexpr std::size_t kStateColumns = 11;  // "backing off"
constexpr std::size_t kBarColumns = 24;
constexpr uint64_t kMapLinePermille = 50;

struct Mark {
  const char* unicode;
  const char* ascii;
};

Mark StateMark(v1::StepState state) {
  switch (state) {
    case v1::STEP_STATE_COMPLETED:
      return {"✔", "+"};
    case v1::STEP_STATE_FAILED:
      return {"✘", "x"};
    case v1::STEP_STATE_RUNNING:
    case v1::STEP_STATE_SCHEDULED:
      return {"●", "*"};
    case v1::STEP_STATE_BACKING_OFF:
    case v1::STEP_STATE_WAITING:
    case v1::STEP_STATE_PARKED:
      return {"◐", "~"};
    case v1::STEP_STATE_SKIPPED:
    case v1::STEP_STATE_CANCELLED:
      return {"–", "-"};
    default:
      return {"○", "."};
  }
}

std::string Attempt(const v1::StepInfo& step) {
  if (step.attempt() <= 1) return "";
  return step.max_attempts() == 0
             ? absl::StrCat("attempt ", step.attempt())
             : absl::StrCat("attempt ", step.attempt(), "/", step.max_attempts());
}

// The visible width of text that carries colour.
std::size_t PaintedWidth(std::string_view text) {
  std::string plain;
  while (!text.empty()) {
    if (text.starts_with("\x1b[")) {
      const std::size_t end = text.find('m');
      if (end == std::string_view::npos) break;
      text.remove_prefix(end + 1);
      continue;
    }
    plain.push_back(text.front());
    text.remove_prefix(1);
  }
  return Width(plain);
}

// A line of painted parts, cut at the terminal's width.
class Line {
 public:
  explicit Line(const Theme& theme) : theme_(theme), room_(theme.columns) {}

  void Add(Style style, std::string_view text) {
    if (theme_.columns == 0) {
      out_.append(Paint(theme_, style, text));
      return;
    }
    if (room_ == 0) return;
    const std::string fitted = Fit(text, room_, theme_.unicode);
    room_ -= std::min(room_, Width(fitted));
    out_.append(Paint(theme_, style, fitted));
  }
  std::size_t room() const { return theme_.columns == 0 ? kBarColumns * 10 : room_; }
  std::string Take() { return std::move(out_); }

 private:
  const Theme& theme_;
  std::size_t room_;
  std::string out_;
};

}  // namespace

void Rate::Add(absl::Time now, uint64_t done) {
  // A count that fell belongs to another generation of the step: start over.
  if (!samples_.empty() && done < samples_.back().done) samples_.clear();
  samples_.push_back({now, done});
  while (samples_.size() > 2 && now - samples_[1].time >= kRateWindow) samples_.pop_front();
}

double Rate::PerSecond() const {
  if (samples_.size() < 2) return 0;
  const absl::Duration span = samples_.back().time - samples_.front().time;
  if (span < kRateMin) return 0;
  return static_cast<double>(samples_.back().done - samples_.front().done) /
         absl::ToDoubleSeconds(span);
}

absl::Time Progress::ServerTime(absl::Time now) const { return now + clock_offset_; }

std::vector<std::string> Progress::Update(const v1::WatchExecutionResponse& response,
                                          absl::Time now) {
  std::vector<std::string> lines;
  if (response.server_time_ms() != 0)
    clock_offset_ = absl::FromUnixMillis(response.server_time_ms()) - now;
  const std::string time = TimeText(absl::ToUnixMillis(ServerTime(now)));
  for (const v1::StepInfo& step : response.steps()) {
    if (step.items() > 0) rates_[step.name()].Add(now, step.items_done());
    std::string line = Escape(step.name(), Lines::kOne);
    absl::StrAppend(&line, "  ", StateName(step.state()));
    if (const std::string attempt = Attempt(step); !attempt.empty())
      absl::StrAppend(&line, "  ", attempt);
    std::string key = line;
    if (step.items() > 0) {
      absl::StrAppend(&line, "  ", MapText(step, 0));
      const uint64_t permille = std::min(step.items_done(), step.items()) * 1000 / step.items();
      absl::StrAppend(&key, permille / kMapLinePermille, ",", step.items_failed());
    }
    if (step.state() == v1::STEP_STATE_FAILED || step.state() == v1::STEP_STATE_BACKING_OFF) {
      const std::string why = step.has_failure() ? FailureText(step.failure()) : step.reason();
      if (!why.empty()) absl::StrAppend(&line, "  ", Escape(why, Lines::kOne));
    } else if (step.state() == v1::STEP_STATE_COMPLETED) {
      absl::StrAppend(&line, "  ", StepDuration(step, ServerTime(now)));
    }
    // What has not begun is no news, and would be a line for every step of the graph.
    if (step.state() == v1::STEP_STATE_PENDING && shown_.find(step.name()) == shown_.end())
      continue;
    std::string& shown = shown_[step.name()];
    if (shown == key) continue;
    shown = std::move(key);
    lines.push_back(absl::StrCat(time, "  ", line));
  }
  if (!started_ || last_.info().status() != response.info().status()) {
    std::string line = absl::StrCat(time, "  ", Escape(response.info().workflow_id(), Lines::kOne),
                                    "  ", StatusName(response.info().status()));
    if (response.has_failure())
      absl::StrAppend(&line, "  ", Escape(FailureText(response.failure()), Lines::kOne));
    // The execution opens before its steps and closes after them.
    lines.insert(started_ || !IsOpen(response.info().status()) ? lines.end() : lines.begin(),
                 std::move(line));
  }
  last_ = response;
  started_ = true;
  return lines;
}

std::string Progress::StepLine(const Theme& theme, const v1::StepInfo& step, std::size_t name_width,
                               absl::Time now) const {
  const Style style = StateStyle(step.state());
  const Mark mark = StateMark(step.state());
  Line line(theme);
  line.Add(style, theme.unicode ? mark.unicode : mark.ascii);
  line.Add(Style::kPlain,
           absl::StrCat(" ",
                        PadRight(Fit(Escape(step.name(), Lines::kOne), name_width, theme.unicode),
                                 name_width),
                        "  "));
  line.Add(style, PadRight(StateName(step.state()), kStateColumns));
  line.Add(Style::kPlain, absl::StrCat("  ", PadLeft(StepDuration(step, ServerTime(now)), 6)));
  std::vector<std::string> notes;
  if (step.items() > 0) {
    const uint64_t done = std::min(step.items_done(), step.items());
    const double fraction = static_cast<double>(done) / static_cast<double>(step.items());
    line.Add(Style::kPlain, "  ");
    line.Add(style, Bar(fraction, std::min(kBarColumns, line.room() / 2), theme.unicode));
    line.Add(Style::kPlain,
             absl::StrCat(" ", PadLeft(absl::StrCat(done * 100 / step.items(), "%"), 4), "  ",
                          MapText(step, 0)));
    const auto rate = rates_.find(step.name());
    const double per_second = rate == rates_.end() ? 0 : rate->second.PerSecond();
    if (per_second > 0 && !IsFinished(step.state())) {
      const absl::Duration eta =
          absl::Seconds(static_cast<double>(step.items() - done) / per_second);
      line.Add(Style::kPlain,
               absl::StrCat(", ", RateText(per_second), ", ETA ", DurationText(eta)));
    }
  }
  if (std::string attempt = Attempt(step); !attempt.empty()) notes.push_back(std::move(attempt));
  std::string detail = StepDetail(step, ServerTime(now));
  // A map's own reason repeats its counts; only a failure adds to them.
  if (!detail.empty() && (step.items() == 0 || step.has_failure()))
    notes.push_back(std::move(detail));
  if (!notes.empty()) {
    line.Add(Style::kDim, absl::StrCat("  ", Escape(absl::StrJoin(notes, "; "), Lines::kOne)));
  }
  return line.Take();
}

std::vector<std::string> Progress::View(const Theme& theme, std::size_t rows,
                                        absl::Time now) const {
  std::vector<std::string> lines;
  const v1::ExecutionInfo& info = last_.info();
  if (!started_ || rows == 0) return lines;

  const auto finished = static_cast<std::size_t>(
      std::count_if(last_.steps().begin(), last_.steps().end(),
                    [](const v1::StepInfo& s) { return IsFinished(s.state()); }));
  const int64_t end =
      info.close_time_ms() != 0 ? info.close_time_ms() : absl::ToUnixMillis(ServerTime(now));
  Line title(theme);
  title.Add(Style::kBold, Escape(info.workflow_id(), Lines::kOne));
  title.Add(Style::kDim, absl::StrCat("  ", Escape(info.workflow(), Lines::kOne)));
  title.Add(Style::kPlain, "  ");
  title.Add(StatusStyle(info.status()), StatusName(info.status()));
  title.Add(Style::kPlain,
            absl::StrCat("  ", DurationText(absl::Milliseconds(end - info.start_time_ms())), "  ",
                         finished, "/", last_.steps_size(), " steps"));
  if (!connected_) title.Add(Style::kWait, "  reconnecting");
  lines.push_back(title.Take());

  std::vector<const v1::StepInfo*> steps;
  for (const v1::StepInfo& step : last_.steps()) steps.push_back(&step);
  std::size_t hidden = 0;
  if (steps.size() + 1 > rows) {
    // Of what does not fit: first the oldest finished, then what lies furthest ahead.
    const std::size_t room = rows >= 2 ? rows - 2 : 0;
    hidden = steps.size() - room;
    std::size_t drop = hidden;
    std::erase_if(steps, [&drop](const v1::StepInfo* s) {
      const bool dull =
          s->state() == v1::STEP_STATE_COMPLETED || s->state() == v1::STEP_STATE_SKIPPED;
      return dull && drop > 0 && drop-- > 0;
    });
    if (steps.size() > room) steps.resize(room);
  }
  std::size_t name_width = 4;
  for (const v1::StepInfo* step : steps) {
    name_width = std::clamp(Width(Escape(step->name(), Lines::kOne)), name_width, kNameColumnsMax);
  }
  for (const v1::StepInfo* step : steps) lines.push_back(StepLine(theme, *step, name_width, now));
  if (hidden > 0 && lines.size() < rows) {
    Line more(theme);
    more.Add(Style::kDim, absl::StrCat("  and ", hidden, " more steps"));
    lines.push_back(more.Take());
  }
  return lines;
}

std::string Progress::Summary(absl::Time now) const {
  const v1::ExecutionInfo& info = last_.info();
  const int64_t end =
      info.close_time_ms() != 0 ? info.close_time_ms() : absl::ToUnixMillis(ServerTime(now));
  const std::string took = DurationText(absl::Milliseconds(end - info.start_time_ms()));
  std::string text =
      absl::StrCat(Escape(info.workflow_id(), Lines::kOne), " ", StatusName(info.status()),
                   Succeeded(info.status()) ? " in " : " after ", took);
  if (last_.has_failure())
    absl::StrAppend(&text, ": ", Escape(FailureText(last_.failure()), Lines::kOne));
  return text;
}

std::optional<std::string> BulkProgress::Update(const v1::BulkOperation& operation,
                                                absl::Time now) {
  last_ = operation;
  started_ = true;
  const uint64_t dealt = operation.done() + operation.refused() + operation.failed();
  rate_.Add(now, dealt);
  const std::string state = BulkStateName(operation.state());
  const uint64_t part =
      operation.matched() == 0 ? 0 : dealt * 1000 / operation.matched() / kMapLinePermille;
  std::string told = absl::StrCat(state, " ", part);
  if (told == shown_) return std::nullopt;
  shown_ = std::move(told);
  return absl::StrCat("bulk operation ", Escape(operation.id(), Lines::kOne), "  ", state, "  ",
                      BulkCounts(operation));
}

std::string BulkProgress::View(const Theme& theme) const {
  const Style style = BulkStateStyle(last_.state());
  const uint64_t dealt = last_.done() + last_.refused() + last_.failed();
  const double fraction =
      last_.matched() == 0 ? 1 : static_cast<double>(dealt) / static_cast<double>(last_.matched());
  Line line(theme);
  line.Add(Style::kBold, Escape(OperationText(last_.operation()), Lines::kOne));
  line.Add(Style::kPlain, "  ");
  line.Add(style, BulkStateName(last_.state()));
  line.Add(Style::kPlain, "  ");
  line.Add(style, Bar(fraction, std::min(kBarColumns, line.room() / 2), theme.unicode));
  line.Add(Style::kPlain, absl::StrCat("  ", BulkCounts(last_)));
  const double per_second = rate_.PerSecond();
  if (per_second > 0 && !HasEnded(last_)) {
    line.Add(Style::kPlain, absl::StrCat(", ", RateText(per_second)));
    if (dealt < last_.matched()) {
      const auto left = static_cast<double>(last_.matched() - dealt);
      line.Add(Style::kPlain,
               absl::StrCat(", ETA ", DurationText(absl::Seconds(left / per_second))));
    }
  }
  if (!connected_) line.Add(Style::kWait, "  reconnecting");
  return line.Take();
}

Screen::~Screen() { Release(); }

std::string Screen::Home(std::size_t columns) const {
  if (widths_.empty()) return "";
  // A terminal made narrower has wrapped our lines: go up over what they take now.
  std::size_t up = 0;
  for (const std::size_t width : widths_) {
    const std::size_t rows = columns == 0 || width == 0 ? 1 : (width + columns - 1) / columns;
    up += rows;
  }
  return absl::StrCat("\r\x1b[", up, "A");
}

void Screen::Draw(const std::vector<std::string>& lines, std::size_t columns) {
  std::string out;
  if (!cursor_hidden_) {
    out.append("\x1b[?25l");
    cursor_hidden_ = true;
  }
  // Each line is written over the old one and only then cleared to its end, so nothing blinks.
  out.append(Home(columns));
  widths_.clear();
  for (const std::string& line : lines) {
    absl::StrAppend(&out, line, "\x1b[K\r\n");
    widths_.push_back(PaintedWidth(line));
  }
  out.append("\x1b[J");
  columns_ = columns;
  write_(out);
}

void Screen::Erase() {
  if (widths_.empty()) return;
  write_(absl::StrCat(Home(columns_), "\x1b[J"));
  widths_.clear();
}

void Screen::Release() {
  widths_.clear();
  if (!cursor_hidden_) return;
  cursor_hidden_ = false;
  write_("\x1b[?25h");
}

}  // namespace flux::ctl
