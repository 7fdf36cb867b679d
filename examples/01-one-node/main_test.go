package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Println(err)
	}
	// Output:
	// block 0: configuration, 1
	// block 1: transactions, 1
	// block 2: transactions, 1
	// block 3: transactions, 1
}
