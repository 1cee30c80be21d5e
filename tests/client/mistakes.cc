// A program without a mistake, unless one of the macros below puts one in: see CMakeLists.txt for
// the sentence each of them must be refused with.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "flux/continue.h"
#include "flux/inline_runner.h"
#include "flux/task_set.h"
#include "flux/workflow.h"

struct Page {
  int number = 0;
  std::string text;
};
FLUX_STRUCT(Page, number, text)

struct Plain {  // no FLUX_STRUCT
  int number = 0;
};

struct Owner {
  std::unique_ptr<int> owned;
};
FLUX_STRUCT(Owner)

struct Rigid {
  explicit Rigid(int) {}
};
FLUX_STRUCT(Rigid)

inline constexpr flux::ErrorType kOdd{"odd"};
inline constexpr flux::Task<std::vector<Page>(std::string)> kSplit{"split"};
inline constexpr flux::Task<std::string(Page)> kCode{"code"};
inline constexpr flux::Task<std::string(std::vector<std::string>)> kMerge{"merge"};
inline constexpr flux::Task<int64_t(int64_t, bool)> kCount{"count"};
inline constexpr flux::Task<void(int64_t, bool, int64_t)> kUncount{"uncount"};
inline constexpr flux::Task<bool(std::optional<bool>)> kDecide{"decide"};
inline constexpr flux::Task<flux::Page<Page>(std::string)> kListPages{"list_pages"};
inline constexpr flux::Event<bool> kApproved{"approved"};
inline constexpr flux::Workflow<std::string(std::string)> kInner{
    "inner", [](flux::Graph&, flux::Value<std::string> text) { return text; }};

#ifdef NO_CODEC
inline constexpr flux::Task<void(Plain)> kMistaken{"mistaken"};
#endif
#ifdef NO_CODEC_IN_LIST
inline constexpr flux::Task<std::vector<Plain>()> kMistaken{"mistaken"};
#endif
#ifdef MOVE_ONLY
inline constexpr flux::Task<void(Owner)> kMistaken{"mistaken"};
#endif
#ifdef NO_DEFAULT_CONSTRUCTOR
inline constexpr flux::Task<void(Rigid)> kMistaken{"mistaken"};
#endif
#ifdef MEMBER_WITHOUT_JSON
struct Holder {
  Plain plain;
};
FLUX_STRUCT(Holder, plain)
auto Mistaken() { return flux::Encode(Holder()); }
#endif

inline constexpr flux::Workflow<std::string(std::string)> kChart{
    "chart", {.version = "1"}, [](flux::Graph& g, flux::Value<std::string> path) {
      auto pages = g.Call(kSplit, path);
      auto codes = g.Map(pages, [&](flux::Value<Page> page) {
        return g.Call(kCode, page).Retry({.max_attempts = 5}).Queue("nlp");
      });
      auto number = g.Map(pages, [&](flux::Value<Page> page) { return page.Field(&Page::number); });
      auto count = g.Call(kCount, 1, true).OnUndo(kUncount);
      auto yes = g.Call(kDecide, true);
      g.MapPages(kListPages, path, kCode).First(3).TolerateFailureShare(0.5);
      g.Child(kInner, path).WorkflowId(path).ParentClose(flux::ParentClose::kAbandon);
      g.Call(kCode, Page()).LimitKey(&Page::number);
#ifdef PAGE_TASK
      g.MapPages(kSplit, path, kCode);
#endif
#ifdef PAGE_BODY
      g.MapPages([&](flux::Value<std::string> cursor) { return cursor; }, path, kCode);
#endif
#ifdef PAGE_CURSOR
      g.MapPages(kListPages, count, kCode);
#endif
#ifdef PAGE_ITEM
      g.MapPages(kListPages, path, kDecide);
#endif
#ifdef CHILD_ID
      g.Child(kInner, path).WorkflowId(count);
#endif
#ifdef CHILD_UNDO
      g.Child(kInner, path).OnUndo(kUncount);
#endif
#ifdef LIMIT_KEY
      g.Call(kSplit, path).LimitKey(&Page::number);
#endif
#ifdef EVENT_DEFAULT
      g.WaitEvent(kApproved).Timeout(absl::Seconds(1)).Default(yes);
#endif
#ifdef EMIT_VALUE
      g.Emit(kApproved, path, count);
#endif
#ifdef OPTION_OF_OTHER_KIND_JOIN
      g.Join(path, path).MaxParallel(3);
#endif
#ifdef OPTION_OF_OTHER_KIND_EMIT
      g.WaitEvent(kApproved).Delay(absl::Seconds(1));
#endif
#ifdef WRONG_ARGUMENT
      g.Call(kSplit, pages);
#endif
#ifdef WRONG_LITERAL
      g.Call(kSplit, 17);
#endif
#ifdef TOO_FEW_ARGUMENTS
      g.Call(kCount, 1);
#endif
#ifdef TOO_MANY_ARGUMENTS
      g.Call(kCount, 1, true, 2);
#endif
#ifdef POINTER_TO_BOOL
      g.Call(kCount, 1, "true");
#endif
#ifdef STRING_TO_OPTIONAL_BOOL
      g.Call(kDecide, "true");
#endif
#ifdef FRACTION_TO_INTEGER
      g.Call(kCount, 1.5, true);
#endif
#ifdef IF_VALUE
      if (yes) g.Sleep(absl::Seconds(1));
#endif
#ifdef NOT_VALUE
      static_cast<void>(!yes);
#endif
#ifdef BRANCH_TYPES
      g.If(
          yes, [&] { return count; }, [&] { return path; });
#endif
#ifdef CASE_TYPES
      g.Switch(count).Case(1, [&] { return path; }).Default([&] { return count; });
#endif
#ifdef MAP_OVER_SCALAR
      g.Map(path, [&](auto item) { return item; });
#endif
#ifdef MAP_BODY
      g.Map(pages, [&](flux::Value<std::string> item) { return item; });
#endif
#ifdef SWITCH_KEY
      g.Switch(pages);
#endif
#ifdef CATCH_TYPE
      g.Call(kCode, Page()).Catch({kOdd}, [&] { return count; });
#endif
#ifdef UNDO_SIGNATURE
      g.Call(kSplit, path).OnUndo(kUncount);
#endif
#ifdef JOIN_TYPES
      g.Join(path, count);
#endif
#ifdef FIELD_OF_NUMBER
      count.Field(&Page::number);
#endif
#ifdef LOOP_STATE
      g.Loop(count, [&](flux::Value<int64_t>) { return g.Until(yes, path); });
#endif
#ifdef OPTION_OF_OTHER_KIND
      g.Sleep(absl::Seconds(1)).Retry({.max_attempts = 2});
#endif
#ifdef OPTION_OF_OTHER_KIND_MAP
      g.Map(pages, kCode).Queue("nlp");
#endif
      return g.If(
          yes, [&] { return g.Call(kMerge, codes).After(number, count); },
          [&] { return g.Fail(kOdd, "the count is odd"); });
    }};

inline constexpr flux::Task<std::string(std::string)> kInnerTask{"inner_task"};
inline constexpr flux::Workflow<int64_t(int64_t)> kNumber{
    "number", [](flux::Graph&, flux::Value<int64_t> n) { return n; }};

#ifdef CAPTURING_LAMBDA
auto Mistaken(int turns) {
  return flux::Workflow<int()>("mistaken", [turns](flux::Graph& g) {
    return g.Loop(0, [](flux::Value<int> n) { return n; }).Turns(turns);
  });
}
#endif
#ifdef LAMBDA_PARAMETERS
inline constexpr flux::Workflow<int64_t(int64_t)> kMistaken{
    "mistaken", [](flux::Graph&, flux::Value<int> n) { return n; }};
#endif
#ifdef LAMBDA_RESULT
inline constexpr flux::Workflow<int64_t(std::string)> kMistaken{
    "mistaken", [](flux::Graph&, flux::Value<std::string> s) { return s; }};
#endif
#ifdef START_ARITY
auto Mistaken() { return kChart.EncodeArguments("a", "b"); }
#endif
#ifdef START_ARGUMENT
auto Mistaken() { return kChart.EncodeArguments(17); }
#endif

int main() {
  flux::TaskSet tasks;
  tasks.Register(kSplit, [](const std::string&) { return std::vector<Page>(); });
  tasks.Register(kCode, [](flux::TaskContext& context, Page) -> absl::StatusOr<std::string> {
    return context.step();
  });
  tasks.Register(kMerge, [](const std::vector<std::string>& codes) -> flux::Outcome<std::string> {
    if (codes.empty()) return flux::Skip{};
    return codes[0];
  });
  tasks.Register(kUncount, [](int64_t, bool, int64_t) -> absl::Status { return kOdd("odd"); });
#ifdef HANDLER_PARAMETER
  tasks.Register(kCount, [](int64_t, std::string) { return int64_t{1}; });
#endif
#ifdef HANDLER_NARROWS
  tasks.Register(kCount, [](int, bool) { return int64_t{1}; });
#endif
#ifdef HANDLER_RESULT
  tasks.Register(kCount, [](int64_t, bool) { return std::string(); });
#endif
#ifdef HANDLER_MUTABLE_REFERENCE
  tasks.Register(kCode, [](Page& page) { return page.text; });
#endif
#ifdef HANDLER_ARITY
  tasks.Register(kCount, [](int64_t n) { return n; });
#endif
  tasks.Register(kInnerTask, [](std::string text) -> flux::Outcome<std::string> {
#ifdef CONTINUE_RESULT
    return flux::Continue<std::string>([](flux::Graph&, flux::Value<int> n) { return n; }, 1);
#endif
#ifdef CONTINUE_ARITY
    return flux::Continue<std::string>([](flux::Graph&, flux::Value<std::string> s) { return s; });
#endif
#ifdef CONTINUE_BODY
    return flux::Continue<std::string>([](std::string s) { return s; }, text);
#endif
#ifdef CONTINUE_WORKFLOW
    return flux::Continue<std::string>(kNumber, 1);
#endif
    return flux::Continue<std::string>(kInner, text);
  });
  return flux::InlineRunner(tasks).Run(kChart, "a.txt").ok() ? 0 : 1;
}
