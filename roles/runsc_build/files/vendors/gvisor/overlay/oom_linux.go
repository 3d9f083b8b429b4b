// Copyright (c) 2026, the ggen.gvisor authors
// SPDX-License-Identifier: BSD-2-Clause

// Package sys: the OOM score of a process, for hosts without CAP_SYS_RESOURCE.
//
// This file stands in for oom_linux.go of containerd's package sys while the
// patched shim is compiled (go build -overlay). It keeps the names that
// containerd's callers use and differs in one respect: where the kernel refuses
// the new score (EPERM, EACCES), the process keeps the score it has.
// It must compile with -lang=go1.19: no min, no max.
package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// The range of /proc/PID/oom_score_adj, see proc_pid_oom_score_adj(5).
const (
	OOMScoreAdjMin = -1000
	OOMScoreAdjMax = +1000
)

func scoreFile(pid int) string {
	return "/proc/" + strconv.Itoa(pid) + "/oom_score_adj"
}

// AdjustOOMScore is SetOOMScore with the score brought into the range first.
func AdjustOOMScore(pid, score int) error {
	switch {
	case score < OOMScoreAdjMin:
		score = OOMScoreAdjMin
	case score > OOMScoreAdjMax:
		score = OOMScoreAdjMax
	}
	return SetOOMScore(pid, score)
}

// SetOOMScore asks the kernel for a score; a refused one is no error.
func SetOOMScore(pid, score int) error {
	if score < OOMScoreAdjMin || OOMScoreAdjMax < score {
		return fmt.Errorf("OOM score %d is not within [%d, %d]", score, OOMScoreAdjMin, OOMScoreAdjMax)
	}
	file, err := os.OpenFile(scoreFile(pid), os.O_WRONLY, 0) // a refused open stays an error
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.WriteString(strconv.Itoa(score))
	if errors.Is(err, fs.ErrPermission) { // EPERM and EACCES
		return nil
	}
	return err
}

// GetOOMScoreAdj reads the score a process has.
func GetOOMScoreAdj(pid int) (int, error) {
	text, err := os.ReadFile(scoreFile(pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
