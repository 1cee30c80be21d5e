// The command line: a tree of CLI11 commands that fills the options of commands.h and runs the
// chosen one.
#ifndef FLUX_CLIENT_FLUXCTL_APP_H_
#define FLUX_CLIENT_FLUXCTL_APP_H_

#include <CLI/CLI.hpp>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client/fluxctl/commands.h"

namespace flux::ctl {

inline constexpr char kDefaultAddress[] = "127.0.0.1:4510";
inline constexpr char kDefaultPort[] = "4510";

// What an option's or a positional's value may be completed to. Kept beside the tree because CLI11
// does not tell.
struct ValueHint {
  std::vector<std::string> words;
  bool file = false;
};

// The tree with all its options, without a server. The completion scripts are generated from it,
// and tests walk it.
class CommandTree {
 public:
  CommandTree();
  CommandTree(const CommandTree&) = delete;
  CommandTree& operator=(const CommandTree&) = delete;

  // Parses and runs; prints errors and help. Returns the process's exit code.
  int Run(int argc, const char* const* argv);

  const CLI::App& app() const { return app_; }
  const std::map<const CLI::Option*, ValueHint>& hints() const { return hints_; }

 private:
  using Command = std::function<CommandResult(Context&)>;

  struct Global {
    std::string address = kDefaultAddress;
    std::string name_space;
    std::string output = "table";
    std::string timeout;
    bool no_color = false;
    bool ascii = false;
    bool version = false;
  };

  CLI::App* Group(CLI::App* parent, const std::string& name, const std::string& description,
                  const std::string& example);
  CLI::App* Leaf(CLI::App* parent, const std::string& name, const std::string& description,
                 const std::string& examples, Command command);
  CLI::Option* Words(CLI::Option* option, std::vector<std::string> words);
  CLI::Option* File(CLI::Option* option);
  // A number from 0 on. CLI11 alone would make -1 the greatest there is.
  static CLI::Option* Count(CLI::Option* option);
  // An id that is made up where none is given, which "" must not come to.
  static CLI::Option* MadeUpId(CLI::Option* option);
  void AddGlobal();
  void AddWorkflow();
  void AddStart(CLI::App* group, const std::string& name, bool run);
  void AddStop(CLI::App* group, const std::string& name, bool terminate);
  void AddRepair(CLI::App* group);
  void AddEvents();
  void AddSchedules();
  void AddScheduleEdit(CLI::App* group, bool create);
  void AddSchedulePause(CLI::App* group, bool pause);
  void AddAdmin();
  void AddBulks();
  // Which executions: ids or filters; and how to act on what filters match.
  void AddBulk(CLI::App* leaf, BulkOptions* bulk);
  void AddByFilter(CLI::App* leaf, BulkOptions* bulk);
  // Ids must be what was typed.
  absl::Status CheckIds(const BulkOptions& bulk) const;
  // The target of a command for a step or an event: one execution, or filters; which step or event;
  // --reason; and, where the command takes one, its JSON.
  CLI::App* AddRepairOne(CLI::App* group, const std::string& name, const std::string& description,
                         const std::string& examples, RepairKind kind);
  void AddTarget(CLI::App* leaf, TargetOptions* target);
  void AddFilter(CLI::App* leaf, FilterOptions* filter);

  // Usage error of the command line itself.
  absl::Status Parse(int argc, const char* const* argv);
  absl::Status CheckLeftovers(const CLI::App& at) const;
  // Every text travels in strings of the protocol, which are UTF-8; the names of files need not be.
  absl::Status CheckUtf8() const;
  CommandResult Execute(Console& console);
  CommandResult PrintVersion(Console& console) const;

  CLI::App app_;
  Global global_;
  std::map<const CLI::Option*, ValueHint> hints_;
  std::map<const CLI::App*, Command> commands_;
  std::vector<const CLI::App*> offline_;  // commands that need no server
  std::vector<std::string> arguments_;
};

// The script for "bash", "zsh" or "fish" that completes `fluxctl`.
std::string CompletionScript(const CommandTree& tree, const std::string& shell);

// host:port, with the port filled in where there is none; gRPC's own schemes (unix:, dns:) pass.
// InvalidArgument.
absl::StatusOr<std::string> CompleteAddress(const std::string& address);

}  // namespace flux::ctl

#endif  // FLUX_CLIENT_FLUXCTL_APP_H_
