package deliver

import (
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"
)

// Filter returns a block as protos.Deliver/DeliverFiltered shows it: of each transaction its id, type and validation
// code, and of endorser transactions the chaincode events without their payload. Codes are those of the block's
// metadata; a transaction without one is NOT_VALIDATED. What can't be read in a transaction is left out, as its code
// says why. Source: Fabric's core/peer/deliverevents.go.
func Filter(b *common.Block) (*peer.FilteredBlock, error) {
	out := &peer.FilteredBlock{Number: b.GetHeader().GetNumber()}
	codes := codesOf(b)
	for i, raw := range b.GetData().GetData() {
		f := &peer.FilteredTransaction{TxValidationCode: peer.TxValidationCode_NOT_VALIDATED}
		if i < len(codes) {
			f.TxValidationCode = peer.TxValidationCode(codes[i])
		}
		var env common.Envelope
		var payload common.Payload
		var header common.ChannelHeader
		err := proto.Unmarshal(raw, &env)
		if err == nil {
			err = proto.Unmarshal(env.Payload, &payload)
		}
		if err == nil {
			err = proto.Unmarshal(payload.GetHeader().GetChannelHeader(), &header)
		}
		if err == nil {
			if i == 0 {
				out.ChannelId = header.ChannelId
			}
			f.Txid, f.Type = header.TxId, common.HeaderType(header.Type)
			if f.Type == common.HeaderType_ENDORSER_TRANSACTION {
				f.Data = &peer.FilteredTransaction_TransactionActions{TransactionActions: actions(payload.Data)}
			}
		}
		out.FilteredTransactions = append(out.FilteredTransactions, f)
	}
	if out.ChannelId == "" {
		return nil, fmt.Errorf("block %d names no channel: %w", out.Number, Unavailable)
	}
	return out, nil
}

func codesOf(b *common.Block) []byte {
	if m := b.GetMetadata().GetMetadata(); len(m) > int(common.BlockMetadataIndex_TRANSACTIONS_FILTER) {
		return m[common.BlockMetadataIndex_TRANSACTIONS_FILTER]
	}
	return nil
}

// actions are the chaincode events of a transaction, without payload.
func actions(raw []byte) *peer.FilteredTransactionActions {
	out := &peer.FilteredTransactionActions{}
	var tx peer.Transaction
	if proto.Unmarshal(raw, &tx) != nil {
		return out
	}
	for _, a := range tx.Actions {
		var inner peer.ChaincodeActionPayload
		var response peer.ProposalResponsePayload
		var action peer.ChaincodeAction
		var event peer.ChaincodeEvent
		if proto.Unmarshal(a.GetPayload(), &inner) != nil ||
			proto.Unmarshal(inner.GetAction().GetProposalResponsePayload(), &response) != nil ||
			proto.Unmarshal(response.GetExtension(), &action) != nil ||
			proto.Unmarshal(action.GetEvents(), &event) != nil || event.ChaincodeId == "" {
			continue
		}
		event.Payload = nil
		out.ChaincodeActions = append(out.ChaincodeActions, &peer.FilteredChaincodeAction{ChaincodeEvent: &event})
	}
	return out
}
